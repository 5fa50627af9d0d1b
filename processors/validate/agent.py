"""The Faust agent of ``validate``: takes records, sends sealed blocks, acknowledges in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from midstream import topics
from midstream.codes import Reason
from midstream.events.judge import Judge
from midstream.events.schemas import load_schemas
from midstream.kafka.connection import connection
from midstream.kafka.schemas import announce
from midstream.kafka.sealing import sign
from midstream.logs import get_logger
from midstream.metrics import DEAD_LETTERS, SEALED_BLOCKS, SEALED_ROWS, VALIDATE_BUFFER_BYTES
from midstream.settings import Settings
from processors.attempts import Attempts, end_if_stuck
from processors.growth import PartitionsChangedError, check_older, wait_for_older_blocks
from processors.lease import Lease
from processors.remade import TopicGuard
from processors.take import for_each, take
from processors.validate.round import Round
from processors.validate.seal import Sealed
from processors.validate.split import RawRecord
from processors.worker import WorkerApp, make_app, or_crash, tell_of_crash

log = get_logger(__name__)


_MAX_TAKEN_BYTES = 24 * 1024 * 1024
_BUFFER_BATCHES = 64
_FETCH_MIN_BYTES = 64 * 1024
"""A round waits for longer than the broker then does at the most, and each answer costs both of them."""
_MAX_PART_BYTES = 32 * 1024 * 1024
_LOOK_S = 1.0


class Validator:
    """Runs rounds against Kafka. One instance a process; its producer lives as long as the worker."""

    def __init__(self, settings: Settings, attempts: Attempts, lease: Lease) -> None:
        self._settings = settings
        self.tries = attempts.lane(topics.RAW.name, mixes=True)
        self.expected_partitions = 0
        """Of ``telemetry.valid``: what was waited for before this worker joined. 0: nothing was."""
        self._judge = Judge(load_schemas(settings.schemas), settings.max_event_bytes, settings.max_event_depth)
        self._lease = lease
        self._producer: AIOKafkaProducer | None = None
        self._valid_partitions = 0
        self._dead_partitions = 0

    async def start(self) -> None:
        """Connect to Kafka. Fatal errors of the producer end the worker with the round that meets them.

        Raises:
            PartitionsChangedError: ``telemetry.valid`` has been given partitions since :attr:`expected_partitions` was
                read.
        """
        self._producer = AIOKafkaProducer(
            **connection(self._settings),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,  # blocks are large and few: there is nothing to wait for
            max_request_size=topics.MAX_MESSAGE_BYTES + 2 * topics.OVERHEAD_BYTES,
            request_timeout_ms=self._settings.kafka_timeout_ms,
            metadata_max_age_ms=int(_LOOK_S * 1000),
        )
        # Each has its own time: together they may take a busy machine longer, and to end then would begin them anew.
        limit_s = self._settings.kafka_timeout_ms / 1000
        async with asyncio.timeout(limit_s):
            await self._producer.start()
        async with asyncio.timeout(limit_s):
            await announce(self._producer, [topics.VALID.name, topics.DEAD.name])
        async with asyncio.timeout(limit_s):
            self._valid_partitions = len(await self._producer.partitions_for(topics.VALID.name))
            self._dead_partitions = len(await self._producer.partitions_for(topics.DEAD.name))
        if self._valid_partitions != self.expected_partitions:
            raise PartitionsChangedError(
                f"{topics.VALID.name} has {self._valid_partitions} partitions, and had {self.expected_partitions}"
            )
        await check_older(self._settings, self._valid_partitions)
        log.info("validate.started", valid_partitions=self._valid_partitions)

    @property
    def connected(self) -> bool:
        """Tell whether :meth:`start` has been done."""
        return self._producer is not None

    async def watch_partitions(self) -> None:
        """Look every second, until cancelled, whether ``telemetry.valid`` still has the same number of partitions.

        Raises:
            PartitionsChangedError: it has not; the next life waits for what was sealed under the old number.
        """
        while True:
            if self._producer is not None and self._valid_partitions:
                partitions = len(await self._producer.partitions_for(topics.VALID.name))
                if partitions != self._valid_partitions:
                    raise PartitionsChangedError(
                        f"{topics.VALID.name} has {partitions} partitions instead of {self._valid_partitions}"
                    )
            await asyncio.sleep(_LOOK_S)

    async def run_round(self, events: Sequence[Any]) -> None:
        """Turn records into durable blocks, then acknowledge the records in order.

        Raises:
            KafkaError, TimeoutError: a block did not become durable; its records have not been acknowledged.
        """
        by_record = {(event.message.partition, event.message.offset): event for event in events}
        for part in self.tries.parts([_record(event.message) for event in events]):
            rest = part
            while rest:
                taken = rest[: await self._run_part(rest)]
                for record in taken:
                    by_record[record.partition, record.offset].ack()
                rest = rest[len(taken) :]

    async def _run_part(self, records: Sequence[RawRecord]) -> int:
        """Turn the first records into durable blocks, as many as memory allows; return how many."""
        round_ = Round(
            self._settings, self._judge, self._valid_partitions, records[0].partition % self._dead_partitions
        )
        sent: list[asyncio.Future[Any]] = []
        taken = 0
        for record in records:
            trial = self.tries.begin(record)
            for sealed in round_.add(record, trial):
                if sealed is None:
                    # The loop must see to the producer and to rebalances meanwhile.
                    await asyncio.sleep(0)
                else:
                    sent.append(await self._send(sealed))
            VALIDATE_BUFFER_BYTES.set(round_.weight_bytes)
            taken += 1
            if round_.weight_bytes > _MAX_PART_BYTES:
                break
        self.tries.joint()
        sent += [await self._send(sealed) for sealed in round_.finish()]
        with self.tries.waiting():
            await asyncio.wait_for(asyncio.gather(*sent), self._settings.kafka_timeout_ms / 1000)
        VALIDATE_BUFFER_BYTES.set(0)
        self.tries.passed()
        return taken

    async def _send(self, sealed: Sealed) -> asyncio.Future[Any]:
        if self._producer is None:
            raise RuntimeError("start() comes first")
        SEALED_BLOCKS.labels(sealed.topic).inc()
        SEALED_ROWS.observe(sealed.rows)
        with self.tries.waiting():
            # A worker that was frozen may have been given up, and others may seal under another number since.
            self._lease.check()
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


def make_validate_app(settings: Settings) -> WorkerApp:
    """Return the Faust app of ``validate``.

    Raises:
        AttemptsError: the home cannot be written to.
    """
    app = make_app(settings, "validate", topics.GROUP_VALIDATE, settings.max_batches_in_flight, _BUFFER_BATCHES)
    app.fetch_min_bytes = _FETCH_MIN_BYTES
    for reason in Reason:
        DEAD_LETTERS.labels(reason)  # 0 from the start on: the first ones are seen to be more
    attempts = Attempts.open(settings, topics.GROUP_VALIDATE)
    tell_of_crash(attempts.close)
    validator = Validator(settings, attempts, app.lease)
    guard = TopicGuard(
        settings,
        {topics.GROUP_VALIDATE: (topics.RAW.name,)},
        others=(topics.VALID.name, topics.DEAD.name, topics.SCHEMAS.name),
    )
    raw = app.topic(topics.RAW.name, key_serializer="raw", value_serializer="raw")

    def wait() -> None:
        guard.prepare()
        loop = asyncio.new_event_loop()  # not asyncio.run, which leaves the thread without one, and Faust wants one
        try:
            validator.expected_partitions = loop.run_until_complete(wait_for_older_blocks(settings))
        finally:
            loop.close()
        app.conf.broker_client_id = sign(topics.GROUP_VALIDATE, validator.expected_partitions)
        if instance := app.conf.consumer_group_instance_id:
            app.conf.consumer_group_instance_id = sign(instance, validator.expected_partitions)

    app.before_start = wait

    @app.on_rebalance_complete.connect
    async def connect(*_: Any, **__: Any) -> None:
        if not validator.connected:
            await or_crash("validate", validator.start())

    @app.task  # type: ignore[untyped-decorator]
    async def end_when_stuck() -> None:
        await or_crash("validate", end_if_stuck(attempts, settings.record_timeout_ms / 1000))

    @app.task  # type: ignore[untyped-decorator]
    async def guard_topics() -> None:
        await or_crash("validate", guard.run())

    @app.task  # type: ignore[untyped-decorator]
    async def watch_partitions() -> None:
        await or_crash("validate", validator.watch_partitions())

    @app.agent(raw, concurrency=1)
    async def validate(stream: Any) -> None:
        rounds = take(
            stream,
            topics.RAW.name,
            records=settings.max_batches_in_flight,
            max_bytes=_MAX_TAKEN_BYTES,
            within_s=settings.seal_interval_ms / 1000,
        )
        await or_crash("validate", for_each(rounds, validator.run_round), validator.tries.failed)

    return app
