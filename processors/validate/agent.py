"""The Faust agent of ``validate``: takes records, sends sealed blocks, acknowledges in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import faust
from aiokafka import AIOKafkaProducer

from midstream import topics
from midstream.events.judge import Judge
from midstream.events.schemas import load_schemas
from midstream.logs import get_logger
from midstream.metrics import SEALED_BLOCKS, SEALED_ROWS, VALIDATE_BUFFER_BYTES
from midstream.settings import Settings
from processors.validate.round import Round
from processors.validate.seal import Sealed
from processors.validate.split import RawRecord
from processors.worker import make_app, or_crash

log = get_logger(__name__)


_MAX_PART_BYTES = 32 * 1024 * 1024


class Validator:
    """Runs rounds against Kafka. One instance a process; its producer lives as long as the worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._judge = Judge(load_schemas(settings.schemas), settings.max_event_bytes, settings.max_event_depth)
        self._producer: AIOKafkaProducer | None = None
        self._valid_partitions = 0
        self._dead_partitions = 0

    async def start(self) -> None:
        """Connect to Kafka. Fatal errors of the producer end the worker with the round that meets them."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,  # blocks are large and few: there is nothing to wait for
            max_request_size=topics.MAX_MESSAGE_BYTES + 2 * topics.OVERHEAD_BYTES,
            request_timeout_ms=self._settings.kafka_timeout_ms,
        )
        async with asyncio.timeout(self._settings.kafka_timeout_ms / 1000):
            await self._producer.start()
            self._valid_partitions = len(await self._producer.partitions_for(topics.VALID.name))
            self._dead_partitions = len(await self._producer.partitions_for(topics.DEAD.name))
        log.info("validate.started", valid_partitions=self._valid_partitions)

    @property
    def connected(self) -> bool:
        """Tell whether :meth:`start` has been done."""
        return self._producer is not None

    async def run_round(self, events: Sequence[Any]) -> None:
        """Turn records into durable blocks, then acknowledge the records in order.

        Raises:
            KafkaError, TimeoutError: a block did not become durable; its records have not been acknowledged.
        """
        while events:
            events = events[await self._run_part(events) :]

    async def _run_part(self, events: Sequence[Any]) -> int:
        """Turn the first records into durable blocks, as many as memory allows, and acknowledge them; return how
        many."""
        round_ = Round(
            self._settings,
            self._judge,
            self._valid_partitions,
            events[0].message.partition % self._dead_partitions,
        )
        sent: list[asyncio.Future[Any]] = []
        taken = 0
        for event in events:
            for sealed in round_.add(_record(event.message)):
                if sealed is None:
                    # The loop must see to the producer and to rebalances meanwhile.
                    await asyncio.sleep(0)
                else:
                    sent.append(await self._send(sealed))
            VALIDATE_BUFFER_BYTES.set(round_.weight_bytes)
            taken += 1
            if round_.weight_bytes > _MAX_PART_BYTES:
                break
            await asyncio.sleep(0)
        sent += [await self._send(sealed) for sealed in round_.finish()]
        await asyncio.wait_for(asyncio.gather(*sent), self._settings.kafka_timeout_ms / 1000)
        VALIDATE_BUFFER_BYTES.set(0)
        for event in events[:taken]:
            event.ack()
        return taken

    async def _send(self, sealed: Sealed) -> asyncio.Future[Any]:
        if self._producer is None:
            raise RuntimeError("start() comes first")
        SEALED_BLOCKS.labels(sealed.topic).inc()
        SEALED_ROWS.observe(sealed.rows)
        # send() itself waits while the partition's buffer is full.
        return await asyncio.wait_for(
            self._producer.send(sealed.topic, sealed.value, partition=sealed.partition),
            self._settings.kafka_timeout_ms / 1000,
        )


def _record(message: Any) -> RawRecord:
    return RawRecord(
        message.topic,
        message.partition,
        message.offset,
        int((message.timestamp or 0) * 1000),
        message.value or b"",
        message.headers or (),
    )


def make_validate_app(settings: Settings) -> tuple[faust.App, int]:
    """Return the Faust app of ``validate`` and the port of its metrics."""
    app = make_app(settings, topics.GROUP_VALIDATE, settings.max_batches_in_flight)
    validator = Validator(settings)
    raw = app.topic(topics.RAW.name, key_serializer="raw", value_serializer="raw")

    @app.on_rebalance_complete.connect
    async def connect(*_: Any, **__: Any) -> None:
        if not validator.connected:
            await or_crash("validate", validator.start())

    @app.agent(raw, concurrency=1)
    async def validate(stream: Any) -> None:
        async for events in stream.noack_take(settings.max_batches_in_flight, within=settings.seal_interval_ms / 1000):
            await or_crash("validate", validator.run_round(events))

    return app, settings.validate_metrics_port
