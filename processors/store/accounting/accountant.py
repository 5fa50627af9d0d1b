"""Publishes progress and the watermark, and watches for losses: two loops beside the agents of ``store``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.kafka.admin import committed_offsets
from midstream.kafka.connection import connection
from midstream.logs import get_logger
from midstream.metrics import COMPLETE_UNTIL_SECONDS, IN_FLIGHT_EVENTS, LAG_RECORDS, UNACCOUNTED_EVENTS
from midstream.settings import Settings
from processors.lease import Lease
from processors.remade import TopicRemadeError
from processors.store.accounting.generations import First, Published, is_anew
from processors.store.accounting.ledger import COMPLETE, SETTLED, Ledger
from processors.store.accounting.marks import MarkReader
from processors.store.accounting.offsets import first_records, partitions_of
from processors.store.accounting.progress import Offsets, Progress
from processors.store.accounting.settled import MINUTE_S, Settled
from processors.store.accounting.watermark import Watermark
from processors.stray import stop_in_time, unless_cancelled

log = get_logger(__name__)

_INTERVAL_S = 1.0
_IDLE_INTERVAL_S = 10.0
_ACTIVE_S = 8.0  # after the last change: until the marks of that time have come, and been published
_RECONCILE_S = 10.0
_RECONCILE_OFTEN_S = 60.0
_RECONCILE_SHARE = 100  # looking takes a hundredth of the time
_RECONCILE_MOST_SHARE = 40  # and up to a fortieth, where it would come less than once a minute
_RECHECK_S = 600.0
_DAY_S = 24 * 3600

_Firsts = Mapping[TopicPartition, First | None]


class Accountant:
    """Runs :class:`Progress` and :class:`Watermark` against Kafka and writes what they say. Several may at once."""

    def __init__(self, settings: Settings, clickhouse: ClickHouse, lease: Lease) -> None:
        self._settings = settings
        self._ledger = Ledger(clickhouse, lease, settings.insert_tries)
        self._progress = Progress()
        self._watermark = Watermark()
        self._marks = MarkReader(settings)
        self._known: dict[TopicPartition, Published] = {}
        """What is known of each partition of ``telemetry.raw``."""
        self._loaded: dict[TopicPartition, Published] = {}
        """What was published of partitions that this process has not looked at yet."""
        self._withheld: set[TopicPartition] = set()
        """Made anew, and without a record yet: of the batches of before, nothing better can be published."""
        self._ends: Offsets = {}
        self._published: dict[TopicPartition, Published] = {}
        self._published_ms = 0
        self._active_until = 0.0
        self._next_heartbeat = 0.0

    async def run(self) -> None:
        """Publish until cancelled.

        Raises:
            KafkaError, ClickHouseError: the worker must end and begin again.
            TopicRemadeError: likewise; ``telemetry.raw`` was deleted and made anew.
        """
        self._loaded = await asyncio.to_thread(self._ledger.progress)
        self._watermark = Watermark(await asyncio.to_thread(self._ledger.watermark, COMPLETE))
        self._published_ms = self._watermark.reached_ms
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(unless_cancelled(self._publish_progress()))
                tasks.create_task(unless_cancelled(self._watch_losses()))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # one is enough to end the worker

    async def _publish_progress(self) -> None:
        consumer = AIOKafkaConsumer(**connection(self._settings), group_id=None)
        admin = AIOKafkaAdminClient(**connection(self._settings))
        await consumer.start()
        try:
            await admin.start()
            await self._marks.start()
            while True:
                await self._take_round(consumer, admin)
                await asyncio.to_thread(self._publish)
                await asyncio.sleep(_INTERVAL_S)
        finally:
            await stop_in_time("progress", consumer.stop())
            await stop_in_time("marks", self._marks.stop())
            await stop_in_time("admin", admin.close())

    async def _take_round(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient) -> None:
        """Take one round. Its order matters: marks, ends of ``telemetry.raw``, and then how far the groups are."""
        timeout_s = self._settings.kafka_timeout_ms / 1000
        async with asyncio.timeout(timeout_s):
            partitions = await partitions_of(admin, topics.COLLECTORS.name)
        low_ms = await self._marks.read_low(partitions)  # the first time it reads them all, which takes what it takes
        async with asyncio.timeout(timeout_s):
            await self._observe(consumer, admin, low_ms)

    async def _observe(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient, low_ms: int) -> None:
        middle = (topics.VALID.name, topics.DEAD.name)
        raw = await partitions_of(admin, topics.RAW.name)
        raw_ends = await consumer.end_offsets(raw)
        firsts = await first_records(consumer, raw)
        self._look_at_generations(raw_ends, firsts)
        validated = await committed_offsets(admin, topics.GROUP_VALIDATE)
        validated = {tp: offset for tp, offset in validated.items() if tp in raw_ends}
        ends = await consumer.end_offsets(await partitions_of(admin, *middle))
        stored = await committed_offsets(admin, topics.GROUP_STORE)
        received = await committed_offsets(admin, topics.GROUP_RECEIPTS)
        _publish_lag(topics.GROUP_VALIDATE, topics.RAW.name, raw_ends, validated)
        for topic in middle:
            _publish_lag(topics.GROUP_STORE, topic, {tp: end for tp, end in ends.items() if tp.topic == topic}, stored)
        complete = self._progress.observe(validated, ends, stored, received)
        # Where no record is left, nothing can be waited for.
        complete |= {tp: raw_ends[tp] for tp, first in firsts.items() if first is None}
        for tp, offset in complete.items():
            if tp in self._known and offset > self._known[tp].complete:  # a replay makes nothing incomplete again
                self._known[tp] = replace(self._known[tp], complete=offset)
                self._active_until = time.monotonic() + _ACTIVE_S
        if raw_ends != self._ends:
            self._active_until = time.monotonic() + _ACTIVE_S
            self._ends = raw_ends
        done = {tp: one.complete for tp, one in self._known.items()}
        COMPLETE_UNTIL_SECONDS.set(self._watermark.observe(low_ms, raw_ends, done) / 1000)

    def _look_at_generations(self, ends: Offsets, firsts: _Firsts) -> None:
        """Find the generation of each partition of ``telemetry.raw``.

        Raises:
            TopicRemadeError: one was made anew while this process ran; it begins again with what Kafka has now.
        """
        now = _now_ms()
        for tp, first in firsts.items():
            since = first.at_ms if first else 0
            known = self._known.get(tp)
            if known is None:
                loaded = self._loaded.pop(tp, None)
                if loaded is None:
                    known = Published(0, since, now)
                elif is_anew(loaded, first, ends[tp]):
                    log.warning("topic.anew", topic=tp.topic, partition=tp.partition, complete=loaded.complete)
                    known = Published(0, since, now)
                    self._withheld.add(tp)
                else:
                    known = loaded
            elif is_anew(known, first, ends[tp]):
                raise TopicRemadeError(f"{tp.topic}/{tp.partition} was deleted and made anew")
            # published_ms is what is_anew() compares with: at that time the partition was as it is said here.
            self._known[tp] = replace(known, since_ms=known.since_ms or since, published_ms=now)
            if first:
                self._withheld.discard(tp)

    def _publish(self) -> None:
        """Write what has changed; at least every ten seconds, for what is measured from the newest progress."""
        now = time.monotonic()
        heartbeat = now >= self._next_heartbeat
        changed = {
            tp: one
            for tp, one in self._known.items()
            if tp not in self._withheld and (heartbeat or _differs(self._published.get(tp), one))
        }
        if changed:
            for tp, other in self._ledger.progress().items():  # another worker may be ahead
                if tp in changed and other.since_ms == changed[tp].since_ms:
                    complete = max(other.complete, changed[tp].complete)
                    changed[tp] = self._known[tp] = replace(changed[tp], complete=complete)
            self._ledger.write_progress(changed)
            self._published |= changed
        if self._watermark.reached_ms > self._published_ms and (heartbeat or now < self._active_until):
            reached_ms = self._watermark.reached_ms
            self._ledger.write_watermark(COMPLETE, reached_ms)
            self._published_ms = reached_ms
        if heartbeat:
            self._ledger.write_marks(self._marks.changed.values())
            self._marks.changed.clear()
            self._next_heartbeat = now + _IDLE_INTERVAL_S

    async def _watch_losses(self) -> None:
        """Keep the metrics of what is in flight and what is unaccounted."""
        settled: Settled | None = None
        next_recheck = 0.0
        while True:
            began = time.monotonic()
            try:
                if settled is None:
                    settled = await asyncio.to_thread(self._begin_settled)
                if began >= next_recheck:
                    await asyncio.to_thread(self._ledger.recheck_losses)
                    next_recheck = began + _RECHECK_S
                await asyncio.to_thread(self._reconcile, settled)
            except ClickHouseError as error:
                log.warning("accounting.not_read", error=str(error)[:300])
                settled = None  # it may be past losses that are not written: the next turn begins where all are
            await asyncio.sleep(pause_s(time.monotonic() - began))

    def _begin_settled(self) -> Settled:
        reached_s = self._ledger.watermark(SETTLED) // 1000
        if not reached_s:
            reached_s = (self._ledger.oldest_batch_ms() or _now_ms()) // 1000
        return Settled(reached_s // MINUTE_S * MINUTE_S)

    def _reconcile(self, settled: Settled) -> None:
        """Look at all minutes that are not settled, a day at a time, and set the metrics.

        What is wrong in a minute when it is settled is kept in ``losses``, whoever runs when. Minutes are taken apart,
        and the accounting takes batches apart: a loss in one and a surplus in another are two.
        """
        complete_until_s = self._published_ms // 1000
        now_s = _now_ms() // 1000 + MINUTE_S
        begin_s = at_s = settled.since_s
        settled.begin()
        while at_s < now_s:
            until_s = min(at_s + _DAY_S, now_s)
            lossy = settled.take(self._ledger.minutes(at_s, until_s), until_s, complete_until_s)
            if lossy:
                log.error("accounting.lost", minutes=len(lossy), events=sum(minute.wrong for minute in lossy))
                self._ledger.write_losses(lossy)
            at_s = until_s
        if settled.since_s > begin_s:
            self._ledger.write_watermark(SETTLED, settled.since_s * 1000)
        IN_FLIGHT_EVENTS.set(settled.in_flight)
        UNACCOUNTED_EVENTS.set(settled.wrong + self._ledger.lost())


def pause_s(took_s: float) -> float:
    """Return how long to wait after a look at the open minutes that took so long."""
    longest_s = max(_RECONCILE_OFTEN_S, took_s * _RECONCILE_MOST_SHARE)
    return max(_RECONCILE_S, min(took_s * _RECONCILE_SHARE, longest_s))


def _differs(before: Published | None, now: Published) -> bool:
    return before is None or (before.complete, before.since_ms) != (now.complete, now.since_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _publish_lag(group: str, topic: str, ends: Offsets, committed: Offsets) -> None:
    LAG_RECORDS.labels(group, topic).set(sum(max(end - committed.get(tp, 0), 0) for tp, end in ends.items()))
