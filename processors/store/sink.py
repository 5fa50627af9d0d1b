"""A plain consumer that turns a topic's records into rows of one table, a block at a time.

For what needs no order and no state beyond the block: batches' receipts and dimensions. Delivery: at least once into
a table whose view shows one row a key; the offset is committed after the insert.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import ConsumerRecord

from midstream.clickhouse.client import ClickHouse
from midstream.kafka.connection import connection
from midstream.logs import get_logger
from midstream.metrics import INSERT_SECONDS
from midstream.settings import Settings
from processors.lease import Lease
from processors.store.units import InsertUnit
from processors.store.verdicts import to_arrow
from processors.stray import stop_in_time

log = get_logger(__name__)

_MAX_RECORDS = 5_000
_METADATA_MAX_AGE_MS = 10_000  # new partitions are read within this time; the default is five minutes

ToRows = Callable[[Sequence[ConsumerRecord[Any, Any]]], list[dict[str, Any]]]


class TableSink:
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
        schema: pa.Schema,
        to_rows: ToRows,
        interval_s: float,
    ) -> None:
        self._settings = settings
        self._clickhouse = clickhouse
        self._lease = lease
        self._topic = topic
        self._group = group
        self._table = table
        self._schema = schema
        self._to_rows = to_rows
        self._interval_s = interval_s

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
            fetch_max_bytes=32 * 1024 * 1024,
            max_partition_fetch_bytes=16 * 1024 * 1024,
        )
        await consumer.start()
        try:
            while True:
                taken = await consumer.getmany(timeout_ms=1_000, max_records=_MAX_RECORDS)
                records = [record for part in taken.values() for record in part]
                if not records:
                    continue
                await asyncio.to_thread(self._insert, records)
                # aiokafka may wait for ever for the group's coordinator after Kafka was away.
                try:
                    async with asyncio.timeout(self._settings.kafka_timeout_ms / 1000):
                        await consumer.commit({tp: part[-1].offset + 1 for tp, part in taken.items()})
                except (CommitFailedError, IllegalStateError):
                    # A worker came or left meanwhile. Whoever has these partitions now reads the records again; to end
                    # this worker for it would be the next rebalance, of the events' group too.
                    log.info("sink.rebalanced", group=self._group, records=len(records))
                    continue
                # Let records gather: an insert has a fixed cost of milliseconds in ClickHouse.
                if len(records) < _MAX_RECORDS:
                    await asyncio.sleep(self._interval_s)
        finally:
            await stop_in_time(self._group, consumer.stop())

    def _insert(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        rows = self._to_rows(records)
        if not rows:
            return
        unit = InsertUnit(self._table, to_arrow(rows, self._schema), "")
        with INSERT_SECONDS.labels(self._table).time():
            self._clickhouse.insert_stream(
                self._table,
                self._schema.names,
                unit.body(),
                unit.token,
                tries=self._settings.insert_tries,
                before_try=lambda _: self._lease.check(),
            )
