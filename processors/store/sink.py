"""A plain consumer that turns a topic's records into rows of one table, a block at a time.

For what needs no order and no state beyond the block: batches' receipts and dimensions. Delivery: at least once into
a table whose view shows one row a key; the offset is committed after the insert.

Records are taken in small pieces, and of each piece nothing is kept but what becomes rows: who reads batches for their
receipts holds no bodies while rows gather.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import pyarrow as pa
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import ConsumerRecord, TopicPartition

from midstream.clickhouse.client import ClickHouse
from midstream.kafka.connection import connection
from midstream.logs import get_logger
from midstream.metrics import INSERT_SECONDS
from midstream.settings import Settings
from processors.lease import Lease
from processors.store.units import InsertUnit
from processors.stray import stop_in_time

log = get_logger(__name__)

_MAX_ROWS = 10_000
_MAX_TAKEN_RECORDS = 250
_MAX_WAIT_S = 1.0
_FETCH_BYTES = 512 * 1024
_FETCH_MAX_WAIT_MS = 500
_METADATA_MAX_AGE_MS = 10_000  # new partitions are read within this time; the default is five minutes

T = TypeVar("T")


class TableSink(Generic[T]):
    """Consumes one topic in a group of its own and inserts into one table."""

    def __init__(
        self,
        settings: Settings,
        clickhouse: ClickHouse,
        lease: Lease,
        *,
        topic: str,
        group: str,
        table: str,
        read: Callable[[Sequence[ConsumerRecord[Any, Any]]], list[T]],
        to_rows: Callable[[Sequence[T]], pa.RecordBatch],
        interval_s: float,
        fetch_min_bytes: int = 1,
    ) -> None:
        """Take how it works.

        Args:
            settings: the worker's.
            clickhouse: where the table is.
            lease: checked before each try of an insert.
            topic: what is read.
            group: in whose name.
            table: where rows go.
            read: what is kept of records until they are inserted; called in a thread.
            to_rows: makes rows of that, right before the insert; likewise.
            interval_s: how long rows gather at the most: an insert has a fixed cost of milliseconds in ClickHouse.
            fetch_min_bytes: the broker waits for so many, for half a second at the most: each answer is a wake-up.
        """
        self._settings = settings
        self._clickhouse = clickhouse
        self._lease = lease
        self._topic = topic
        self._group = group
        self._table = table
        self._read = read
        self._to_rows = to_rows
        self._interval_s = interval_s
        self._fetch_min_bytes = fetch_min_bytes

    async def run(self) -> None:
        """Consume until cancelled.

        Raises:
            ClickHouseError, KafkaError, TimeoutError: the worker must end and begin again at the committed offsets.
        """
        instance = self._settings.worker_id
        consumer = AIOKafkaConsumer(
            self._topic,
            **connection(self._settings),
            group_id=self._group,
            group_instance_id=f"{self._group}-{instance}" if instance else None,
            session_timeout_ms=self._settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=self._settings.kafka_session_timeout_ms // 4,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            # A record that is larger comes whole, alone.
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=4 * _FETCH_BYTES,
            fetch_min_bytes=self._fetch_min_bytes,
            fetch_max_wait_ms=_FETCH_MAX_WAIT_MS,
        )
        await consumer.start()
        inserted_at = float("-inf")
        try:
            while True:
                kept, offsets = await self._gather(consumer, inserted_at + self._interval_s)
                inserted_at = time.monotonic()
                await asyncio.to_thread(self._insert, kept)
                # aiokafka may wait for ever for the group's coordinator after Kafka was away.
                try:
                    async with asyncio.timeout(self._settings.kafka_timeout_ms / 1000):
                        await consumer.commit(offsets)
                except (CommitFailedError, IllegalStateError):
                    # A worker came or left meanwhile. Whoever has these partitions now reads the records again; to end
                    # this worker for it would be the next rebalance, of the events' group too.
                    log.info("sink.rebalanced", group=self._group, records=len(kept))
        finally:
            await stop_in_time(self._group, consumer.stop())

    async def _gather(self, consumer: AIOKafkaConsumer, until: float) -> tuple[list[T], dict[TopicPartition, int]]:
        """Return what is kept of the next records, one at least, and the offsets after them.

        Args:
            consumer: gives them.
            until: when to return what there is then, seconds of the monotonic clock.
        """
        kept: list[T] = []
        offsets: dict[TopicPartition, int] = {}
        while len(kept) < _MAX_ROWS:
            wait_s = until - time.monotonic() if offsets else _MAX_WAIT_S
            if wait_s <= 0:
                break
            taken = await consumer.getmany(timeout_ms=int(wait_s * 1000), max_records=_MAX_TAKEN_RECORDS)
            for tp, part in taken.items():
                kept += await asyncio.to_thread(self._read, part)
                offsets[tp] = part[-1].offset + 1
        return kept, offsets

    def _insert(self, kept: Sequence[T]) -> None:
        rows = self._to_rows(kept)
        if not rows.num_rows:
            return
        with INSERT_SECONDS.labels(self._table).time():
            self._clickhouse.insert_stream(
                self._table,
                rows.schema.names,
                InsertUnit(self._table, rows, "").body(),
                "",
                tries=self._settings.insert_tries,
                before_try=lambda _: self._lease.check(),
            )
