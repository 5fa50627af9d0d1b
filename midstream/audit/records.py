"""What Kafka still has of batches that an audit asks about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from midstream.audit.store import Place
from midstream.settings import Settings
from processors.validate.split import RawRecord, UnreadableBatch, split_record


class KafkaAwayError(Exception):
    """Kafka does not give its records now."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """A batch as its record holds it."""

    batch_id: str
    events: list[bytes]

    def names(self, index: int) -> tuple[str, str]:
        """Return mid and eid of an event, "" where they cannot be read."""
        try:
            event = msgspec.json.decode(self.events[index], type=_Names)
        except (IndexError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return "", ""
        return (name if isinstance(name, str) else "" for name in (event.mid, event.eid))  # type: ignore[return-value]


class _Names(msgspec.Struct):
    mid: object = ""
    eid: object = ""


class RawReader:
    """Reads single records of ``telemetry.raw``, without a group."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._timeout_s = settings.kafka_timeout_ms / 1000

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[RawReader]:
        """Connect.

        Raises:
            KafkaAwayError: Kafka does not answer.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=settings.kafka_timeout_ms,
            max_partition_fetch_bytes=64 * 1024,  # Kafka sends one record whole, however long it is
        )
        try:
            try:
                async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
                    await consumer.start()
            except (KafkaError, OSError, TimeoutError) as error:
                raise KafkaAwayError(f"{settings.kafka_servers}: {type(error).__name__}") from None
            yield cls(settings, consumer)
        finally:
            await consumer.stop()

    async def read(self, places: Collection[Place]) -> AsyncIterator[tuple[Place, RawBatch | None]]:
        """Yield the batch at each place, or None where Kafka has no record any more.

        Raises:
            KafkaAwayError: Kafka stops answering.
        """
        by_partition: dict[TopicPartition, list[int]] = {}
        for place in sorted(set(places), key=lambda place: (place.topic, place.partition, place.offset)):
            by_partition.setdefault(TopicPartition(place.topic, place.partition), []).append(place.offset)
        try:
            for tp, offsets in by_partition.items():
                async with asyncio.timeout(self._timeout_s):
                    first = (await self._consumer.beginning_offsets([tp]))[tp]
                    end = (await self._consumer.end_offsets([tp]))[tp]
                self._consumer.assign([tp])
                for offset in offsets:
                    there = first <= offset < end
                    yield Place(tp.topic, tp.partition, offset), await self._read(tp, offset) if there else None
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAwayError(f"{self._settings.kafka_servers}: {type(error).__name__}") from None

    async def _read(self, tp: TopicPartition, offset: int) -> RawBatch | None:
        self._consumer.seek(tp, offset)
        async with asyncio.timeout(self._timeout_s):
            record = await self._consumer.getone(tp)
        if record.offset != offset:
            return None  # deleted meanwhile
        raw = RawRecord(tp.topic, tp.partition, offset, record.timestamp, record.value or b"", record.headers)
        split = split_record(raw, self._settings.max_inflated_bytes, self._settings.max_batch_events)
        if isinstance(split, UnreadableBatch):
            return RawBatch(split.receipt.batch_id, [])
        receipt, batch = split
        return RawBatch(receipt.batch_id, [bytes(event) for event in batch.events])
