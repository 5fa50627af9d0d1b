"""What Kafka still has of batches that an audit asks about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from midstream.audit.store import Gap, Place
from midstream.kafka.connection import connection
from midstream.receipt import Receipt
from midstream.settings import Settings
from processors.validate.split import RawRecord, UnreadableBatch, receipt_of, split_record

_READ_THROUGH = 16
"""So many records are rather read and passed over than left out with a new request."""


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
    """Reads records of ``telemetry.raw``, without a group."""

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
            **connection(settings),
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

    async def receipts(self, gaps: Sequence[Gap]) -> AsyncGenerator[tuple[Gap, Receipt | None], None]:
        """Yield what Kafka has at these offsets, which ascend in one partition: a record's place and its receipt, or
        None and a run of offsets where it has no record any more. Records in a row are read as they come.

        Raises:
            KafkaAwayError: Kafka stops answering.
        """
        if not gaps:
            return
        tp = TopicPartition(gaps[0].start.topic, gaps[0].start.partition)
        try:
            async with asyncio.timeout(self._timeout_s):
                first = (await self._consumer.beginning_offsets([tp]))[tp]
                end = (await self._consumer.end_offsets([tp]))[tp]
            self._consumer.assign([tp])
            position = end  # of the consumer
            for gap in gaps:
                at, last = gap.start.offset, gap.start.offset + gap.count
                while at < last:
                    until = min(first, last) if at < first else last
                    record = None
                    if first <= at < end:
                        if not position <= at < position + _READ_THROUGH:
                            self._consumer.seek(tp, at)
                        async with asyncio.timeout(self._timeout_s):
                            record = await self._consumer.getone(tp)
                        position = record.offset + 1
                        if record.offset < at:
                            continue
                        until = min(record.offset, last)
                    if until > at:
                        yield Gap(replace(gap.start, offset=at), until - at), None
                    at = until
                    if record is not None and at < last:
                        raw = RawRecord(
                            tp.topic, tp.partition, at, record.timestamp, record.value or b"", record.headers
                        )
                        yield Gap(replace(gap.start, offset=at), 1), receipt_of(raw)
                        at += 1
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
