"""Publishes how far ``telemetry.raw`` is through the whole pipeline, and what is unaccounted for.

Three groups read in a chain, and Kafka's committed offsets say how far each is. What ``validate`` committed at one
moment, it has produced before; so once ``store`` has committed past the ends that the two middle topics had at that
moment, those batches are through. No worker has to report anything.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.logs import get_logger
from midstream.metrics import LAG_RECORDS, UNACCOUNTED_EVENTS
from midstream.settings import Settings
from processors.store.lease import Lease
from processors.store.units import InsertUnit, make_token
from processors.store.verdicts import to_arrow

log = get_logger(__name__)

PROGRESS_TABLE = "progress_rows"

_PROGRESS: pa.Schema = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.uint32()),
        ("complete_offset", pa.uint64()),
        ("published_at", pa.timestamp("ms", tz="UTC")),
    ]
)
_INTERVAL_S = 1.0
_RECONCILE_S = 10.0
_MAX_SNAPSHOTS = 600

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    validated: dict[TopicPartition, int]  # of telemetry.raw
    ends: dict[TopicPartition, int]  # of telemetry.valid and telemetry.dead, read after


class Progress:
    """Works out the complete offsets of ``telemetry.raw``. Pure."""

    def __init__(self) -> None:
        self._snapshots: deque[_Snapshot] = deque(maxlen=_MAX_SNAPSHOTS)

    def observe(
        self, validated: Offsets, ends: Offsets, stored: Offsets, received: Offsets
    ) -> dict[TopicPartition, int]:
        """Take one round of offsets; return the complete offset of each partition of ``telemetry.raw`` known so far.

        Args:
            validated: committed by ``validate``, read first.
            ends: ends of ``telemetry.valid`` and ``telemetry.dead``, read second.
            stored: committed by ``store`` on these, read third.
            received: committed by the consumer that writes ``batches``.
        """
        self._snapshots.append(_Snapshot(dict(validated), dict(ends)))
        newest: _Snapshot | None = None
        while self._snapshots and all(stored.get(tp, 0) >= end for tp, end in self._snapshots[0].ends.items()):
            newest = self._snapshots.popleft()
        if newest is None:
            return {}
        return {tp: min(offset, received.get(tp, 0)) for tp, offset in newest.validated.items()}


class Accountant:
    """Runs :class:`Progress` against Kafka and writes ``progress``. Several at once write the same."""

    def __init__(self, settings: Settings, clickhouse: ClickHouse, lease: Lease) -> None:
        self._settings = settings
        self._clickhouse = clickhouse
        self._lease = lease
        self._progress = Progress()
        self._published: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            KafkaError, ClickHouseError: the worker must end and begin again.
        """
        consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_servers, group_id=None)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka_servers)
        await consumer.start()
        try:
            await admin.start()
            next_reconcile = 0.0
            while True:
                async with asyncio.timeout(self._settings.kafka_timeout_ms / 1000):
                    complete = await self._observe(consumer, admin)
                if complete != self._published and complete:
                    await asyncio.to_thread(self._publish, complete)
                    self._published = complete
                if time.monotonic() >= next_reconcile:
                    await asyncio.to_thread(self._reconcile)
                    next_reconcile = time.monotonic() + _RECONCILE_S
                await asyncio.sleep(_INTERVAL_S)
        finally:
            await consumer.stop()
            await admin.close()

    async def _observe(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient) -> dict[TopicPartition, int]:
        middle = (topics.VALID.name, topics.DEAD.name)
        await consumer.topics()  # refreshes the metadata: partitions may have been added
        validated = await _committed(admin, topics.GROUP_VALIDATE)
        validated = {tp: offset for tp, offset in validated.items() if tp.topic == topics.RAW.name}
        ends = await consumer.end_offsets(_partitions(consumer, *middle))
        stored = await _committed(admin, topics.GROUP_STORE)
        received = await _committed(admin, topics.GROUP_RECEIPTS)
        raw_ends = await consumer.end_offsets(_partitions(consumer, topics.RAW.name))
        _publish_lag(topics.GROUP_VALIDATE, topics.RAW.name, raw_ends, validated)
        for topic in middle:
            _publish_lag(topics.GROUP_STORE, topic, {tp: end for tp, end in ends.items() if tp.topic == topic}, stored)
        return self._progress.observe(validated, ends, stored, received)

    def _publish(self, complete: Offsets) -> None:
        now_ms = time.time_ns() // 1_000_000
        rows = [
            {"topic": tp.topic, "partition": tp.partition, "complete_offset": offset, "published_at": now_ms}
            for tp, offset in sorted(complete.items())
        ]
        unit = InsertUnit(PROGRESS_TABLE, to_arrow(rows, _PROGRESS), "")
        body = unit.body()
        self._clickhouse.insert_stream(
            PROGRESS_TABLE,
            _PROGRESS.names,
            body,
            make_token(PROGRESS_TABLE, body),
            tries=self._settings.insert_tries,
            before_try=lambda _: self._lease.check(),
        )

    def _reconcile(self) -> None:
        """Set the metric from the last hour; a query that fails is tried again at the next turn."""
        try:
            rows = self._clickhouse.rows(
                "SELECT sum(unaccounted) FROM accounting WHERE minute >= {since:DateTime}",
                {"since": int(time.time()) - 3600},
            )
        except ClickHouseError as error:
            log.warning("accounting.not_read", error=str(error)[:300])
            return
        UNACCOUNTED_EVENTS.set(int(rows[0][0]))


def _partitions(consumer: AIOKafkaConsumer, *names: str) -> list[TopicPartition]:
    return [
        TopicPartition(name, partition) for name in names for partition in consumer.partitions_for_topic(name) or ()
    ]


async def _committed(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    offsets = await admin.list_consumer_group_offsets(group)
    return {tp: max(entry.offset, 0) for tp, entry in offsets.items()}


def _publish_lag(group: str, topic: str, ends: Offsets, committed: Offsets) -> None:
    LAG_RECORDS.labels(group, topic).set(sum(max(end - committed.get(tp, 0), 0) for tp, end in ends.items()))
