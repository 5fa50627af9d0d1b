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
from aiokafka.errors import UnknownTopicOrPartitionError
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
_LOOK_BACK_S = 24 * 3600
_SETTLE_S = 300  # a minute stays open for as long as its last batch may take to be written anywhere
_MAX_SNAPSHOTS = 600

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    validated: dict[TopicPartition, int]  # of telemetry.raw
    ends: dict[TopicPartition, int]  # of telemetry.valid and telemetry.dead, read after


class Progress:
    """Works out the complete offsets of ``telemetry.raw``. Pure."""

    def __init__(self) -> None:
        self._snapshots: deque[_Snapshot] = deque()

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
        if len(self._snapshots) > _MAX_SNAPSHOTS:  # a long backlog: coarser steps, but the oldest stays
            self._snapshots = deque(list(self._snapshots)[::2])
        newest: _Snapshot | None = None
        while self._snapshots and all(stored.get(tp, 0) >= end for tp, end in self._snapshots[0].ends.items()):
            newest = self._snapshots.popleft()
        if newest is None:
            return {}
        return {tp: min(offset, received.get(tp, 0)) for tp, offset in newest.validated.items()}


class Settled:
    """How many events are unaccounted for, asking for each minute only until it is settled. Pure."""

    def __init__(self, since_s: int) -> None:
        self.since_s = since_s
        """The first minute that is not settled, epoch seconds."""
        self.unaccounted = 0
        self._closed = 0

    def settle(self, minutes: list[tuple[int, int, int]], now_s: float) -> None:
        """Take (minute, in flight, unaccounted) of all minutes from :attr:`since_s` on, in order."""
        open_ = 0
        settling = True
        for minute_s, in_flight, missing in minutes:
            settling = settling and in_flight == 0 and minute_s < now_s - _SETTLE_S
            if settling:
                self._closed += abs(missing)
                self.since_s = minute_s + 60
            else:
                open_ += abs(missing)
        self.unaccounted = self._closed + open_


class Accountant:
    """Runs :class:`Progress` against Kafka and writes ``progress``. Several at once write the same."""

    def __init__(self, settings: Settings, clickhouse: ClickHouse, lease: Lease) -> None:
        self._settings = settings
        self._clickhouse = clickhouse
        self._lease = lease
        self._progress = Progress()
        self._published: dict[TopicPartition, int] = {}
        self._settled = Settled(int(time.time()) - _LOOK_BACK_S)

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
        validated = await _committed(admin, topics.GROUP_VALIDATE)
        validated = {tp: offset for tp, offset in validated.items() if tp.topic == topics.RAW.name}
        ends = await consumer.end_offsets(await _partitions(admin, *middle))
        stored = await _committed(admin, topics.GROUP_STORE)
        received = await _committed(admin, topics.GROUP_RECEIPTS)
        raw_ends = await consumer.end_offsets(await _partitions(admin, topics.RAW.name))
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
        """Set the metric; a query that fails is tried again at the next turn.

        A minute in which nothing is in flight any more is settled and not asked for again; what was missing in it stays
        in the metric as long as this worker lives. Minutes are taken apart: a loss in one and a surplus in another
        are two.
        """
        try:
            rows = self._clickhouse.rows(
                "SELECT toUnixTimestamp(minute) AS at, sum(in_flight), sum(unaccounted) FROM accounting "
                "WHERE minute >= toDateTime({since:UInt32}, 'UTC') GROUP BY at ORDER BY at",
                {"since": self._settled.since_s},
            )
        except ClickHouseError as error:
            log.warning("accounting.not_read", error=str(error)[:300])
            return
        self._settled.settle([(int(at), int(in_flight), int(missing)) for at, in_flight, missing in rows], time.time())
        UNACCOUNTED_EVENTS.set(self._settled.unaccounted)


async def _partitions(admin: AIOKafkaAdminClient, *names: str) -> list[TopicPartition]:
    """Return all partitions of these topics.

    Asked each time, as some may have been added; and not of the consumer, which knows those of its own subscription
    only. A topic without partitions would make every batch count as through.

    Raises:
        UnknownTopicOrPartitionError: a topic is not there.
    """
    described = await admin.describe_topics(list(names))
    found = [TopicPartition(entry["topic"], part["partition"]) for entry in described for part in entry["partitions"]]
    if {tp.topic for tp in found} != set(names):
        raise UnknownTopicOrPartitionError(f"not all of {', '.join(names)} are there")
    return found


async def _committed(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    offsets = await admin.list_consumer_group_offsets(group)
    return {tp: max(entry.offset, 0) for tp, entry in offsets.items()}


def _publish_lag(group: str, topic: str, ends: Offsets, committed: Offsets) -> None:
    LAG_RECORDS.labels(group, topic).set(sum(max(end - committed.get(tp, 0), 0) for tp, end in ends.items()))
