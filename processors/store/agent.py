"""The Faust agents of ``store``, and what runs beside them in the same process: two sinks and the dimension
listener."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.erased import SUBKEY, ErasedKey
from midstream.logs import get_logger
from midstream.metrics import BLOCK_SECONDS
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.keyfile import derive_key
from midstream.settings import Settings
from processors.attempts import Attempts, end_if_stuck
from processors.growth import older_are_stored, sealed_under
from processors.lease import Lease
from processors.remade import TopicGuard
from processors.store.accounting.accountant import Accountant
from processors.store.block_log import BlockLog
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.stored import StoredMids
from processors.store.dimension_cache import DimensionCache
from processors.store.dimensions import DIMENSION_TABLE, decode_rows, dimension_rows, load_erased
from processors.store.erased import ErasedUsers
from processors.store.listener import listen
from processors.store.receipts import BATCH_TABLE, batch_rows, read_receipts
from processors.store.route import check_routes
from processors.store.sink import TableSink
from processors.store.storer import Storer, StoreRecord
from processors.store.watched import WatchedClickHouse
from processors.take import for_each, take
from processors.worker import WorkerApp, make_app, or_crash, tell_of_crash

log = get_logger(__name__)

_MAX_BLOCKS = 8
_BUFFER_BLOCKS = 2
_MAX_TAKEN_BYTES = 8 * 1024 * 1024
_TAKE_S = 0.1
_TAKE_DEAD_S = 1.0
_RECEIPTS_INTERVAL_S = 1.0
_RECEIPTS_FETCH_MIN_BYTES = 256 * 1024
_DIMENSIONS_INTERVAL_S = 0.5


class UnloadedPartitionError(Exception):
    """Records of a partition came before the dedupe cache was loaded for it."""


class Assignment(Protocol):
    """What the consumer says of its partitions of ``telemetry.valid``."""

    def is_current(self, message: Any) -> bool:
        """Tell whether a record was read since the last rebalance."""

    def end(self, partition: int) -> int | None:
        """Return the end of a partition as it was seen since it was assigned, if it was."""


class ConsumerAssignment:
    """:class:`Assignment` of a Faust app."""

    def __init__(self, app: WorkerApp) -> None:
        self._app = app

    def is_current(self, message: Any) -> bool:
        """See :class:`Assignment`."""
        return bool(message.generation_id == self._app.consumer_generation_id)

    def end(self, partition: int) -> int | None:
        """See :class:`Assignment`. It comes with each fetch, so it is there once a record is."""
        try:
            end = self._app.consumer.highwater(TopicPartition(topics.VALID.name, partition))
        except AssertionError:  # aiokafka's way to say that the partition was just taken away
            return None
        return None if end is None else int(end)

    def partitions(self) -> list[int]:
        """Return the numbers of the partitions that this worker has."""
        return sorted(tp.partition for tp in self._app.consumer.assignment() if tp.topic == topics.VALID.name)

    def of(self) -> int:
        """Return how many partitions there are."""
        return self._app.consumer.topic_partitions(topics.VALID.name) or 1


# Of its own: each thread has its own freed buffers, and a block should find those of the block before it.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")


class Worker:
    """The state of one ``store`` process between its agents and tasks."""

    _is_complete = True
    """Whether all blocks sealed under another number of partitions were stored when the cache was loaded. If not, it
    lacks mids that others store until the first block under the present number; see :mod:`processors.growth`."""

    def __init__(self, settings: Settings, lease: Lease) -> None:
        self._settings = settings
        self.attempts = attempts = Attempts.open(settings, topics.GROUP_STORE)
        tell_of_crash(attempts.close)
        self.receipt_tries = attempts.lane(topics.RAW.name)
        self.clickhouse: ClickHouse = WatchedClickHouse(open_client(settings), attempts)
        check_routes(row[0] for row in self.clickhouse.rows("SHOW TABLES"))
        self.dimensions = DimensionCache(
            self.clickhouse,
            settings.dimension_cache_entries,
            settings.dimension_cache_bytes,
            settings.dimension_negative_ms,
        )
        self.erased = ErasedUsers(partial(_erased_key, settings), settings.max_erased_ids)
        load_erased(self.clickhouse, self.erased)
        self.block_log = BlockLog(self.clickhouse, lease)
        self.storer = Storer(
            self.clickhouse,
            self.dimensions,
            lease,
            settings.insert_tries,
            attempts=attempts,
            log_block=self.block_log.add,
            erased=self.erased,
        )
        self.storer.check_tables()
        self._cache = self._empty_cache()
        self._lock = asyncio.Lock()

    def _empty_cache(self) -> DedupeCache:
        return DedupeCache(
            StoredMids(self.clickhouse), self._settings.dedupe_memory_bytes, self._settings.dedupe_recent
        )

    async def load_cache(self, partitions: Sequence[int], of: int) -> None:
        """Read what is stored of the assigned partitions; awaited before their records flow.

        It waits for the insert under way: what that stores must be in what is read.
        """
        async with self._lock:
            await self._load_cache(partitions, of, is_complete=await older_are_stored(self._settings, of))

    async def _load_cache(self, partitions: Sequence[int], of: int, *, is_complete: bool) -> None:
        cache = self._empty_cache()
        await asyncio.to_thread(cache.load, partitions, of)
        self._cache, self._is_complete = cache, is_complete

    async def follow_partitions(self, partitions: Sequence[int], of: int) -> None:
        """Load the cache anew if the topic has been given partitions since: it would answer no question by itself."""
        if of != self._cache.of:
            await self.load_cache(partitions, of)

    async def store_valid(self, events: Sequence[Any], assignment: Assignment) -> None:
        """Store records of ``telemetry.valid`` and acknowledge them, in order.

        Faust keeps a few records that were read before the last rebalance. They are left alone: whoever has their
        partitions now, this worker or another, reads them again from the committed offset.

        Raises:
            UnloadedPartitionError: the cache was not loaded for a partition that is ours; to go on would leave a hole.
        """
        async with self._lock:
            own = [event for event in events if assignment.is_current(event.message)]
            if unloaded := {event.message.partition for event in own} - self._cache.partitions:
                raise UnloadedPartitionError(f"partitions {sorted(unloaded)} came before their mids were loaded")
            if not self._is_complete and any(sealed_under(e.message.value or b"") == self._cache.of for e in own):
                await self._load_cache(sorted(self._cache.partitions), self._cache.of, is_complete=True)
            for partition in {event.message.partition for event in own}:
                end = assignment.end(partition)
                if end is not None:
                    self._cache.saw_end(partition, end)
            if own:
                with BLOCK_SECONDS.time():
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(_thread, self.storer.store_valid, _records(own), self._cache)
            for event in own:
                event.ack()

    async def store_dead(self, events: Sequence[Any], assignment: Assignment) -> None:
        """Store records of ``telemetry.dead`` and acknowledge them, in order; as :meth:`store_valid`."""
        own = [event for event in events if assignment.is_current(event.message)]
        await asyncio.to_thread(self.storer.store_dead, _records(own))
        for event in own:
            event.ack()


def _erased_key(settings: Settings) -> ErasedKey | None:
    try:
        return ErasedKey(derive_key(settings, SUBKEY))
    except RegistryUnavailable as error:
        log.warning("erased.no_key", reason=str(error))
        return None


def _records(events: Sequence[Any]) -> list[StoreRecord]:
    return [
        StoreRecord(m.topic, m.partition, m.offset, int((m.timestamp or 0) * 1000), m.value or b"")
        for m in (event.message for event in events)
    ]


def make_store_app(settings: Settings) -> WorkerApp:
    """Return the Faust app of ``store``.

    Raises:
        AttemptsError: the home cannot be written to.
        ClickHouseError: ClickHouse is away.
        ErasedError: users were erased, and the key by which their ids are known is not here.
        RouteError: a route leads to no table.
    """
    app = make_app(settings, "store", topics.GROUP_STORE, _MAX_BLOCKS, _BUFFER_BLOCKS)
    worker = Worker(settings, app.lease)
    guard = TopicGuard(
        settings,
        {
            topics.GROUP_STORE: (topics.VALID.name, topics.DEAD.name),
            topics.GROUP_RECEIPTS: (topics.RAW.name,),
            topics.GROUP_DIMENSIONS: (topics.DIMENSIONS.name,),
        },
    )
    app.before_start = guard.prepare
    valid = app.topic(topics.VALID.name, key_serializer="raw", value_serializer="raw")
    dead = app.topic(topics.DEAD.name, key_serializer="raw", value_serializer="raw")

    assignment = ConsumerAssignment(app)

    # The gate: awaited before partitions are sought and records flow.
    @app.on_rebalance_complete.connect
    async def load(*_: Any, **__: Any) -> None:
        await or_crash("store", worker.load_cache(assignment.partitions(), assignment.of()))

    @app.agent(valid, concurrency=1)
    async def store(stream: Any) -> None:
        async def store_valid(events: list[Any]) -> None:
            await worker.follow_partitions(assignment.partitions(), assignment.of())
            await worker.store_valid(events, assignment)

        taken = take(stream, topics.VALID.name, records=_MAX_BLOCKS, max_bytes=_MAX_TAKEN_BYTES, within_s=_TAKE_S)
        await or_crash("store", for_each(taken, store_valid), worker.storer.valid_tries.failed)

    @app.agent(dead, concurrency=1)
    async def bury(stream: Any) -> None:
        async def store_dead(events: list[Any]) -> None:
            await worker.store_dead(events, assignment)

        taken = take(stream, topics.DEAD.name, records=_MAX_BLOCKS, max_bytes=_MAX_TAKEN_BYTES, within_s=_TAKE_DEAD_S)
        await or_crash("store", for_each(taken, store_dead), worker.storer.dead_tries.failed)

    @app.task  # type: ignore[untyped-decorator]
    async def end_when_stuck() -> None:
        await or_crash("store", end_if_stuck(worker.attempts, settings.record_timeout_ms / 1000))

    @app.task  # type: ignore[untyped-decorator]
    async def guard_topics() -> None:
        await or_crash("store", guard.run())

    @app.task  # type: ignore[untyped-decorator]
    async def sink_receipts() -> None:
        sink = TableSink(
            settings,
            worker.clickhouse,
            app.lease,
            topic=topics.RAW.name,
            group=topics.GROUP_RECEIPTS,
            table=BATCH_TABLE,
            read=partial(
                read_receipts,
                max_inflated_bytes=settings.max_inflated_bytes,
                max_events=settings.max_batch_events,
                tries=worker.receipt_tries,
            ),
            to_rows=batch_rows,
            interval_s=_RECEIPTS_INTERVAL_S,
            fetch_min_bytes=_RECEIPTS_FETCH_MIN_BYTES,
        )
        await or_crash("store", sink.run(), worker.receipt_tries.failed)

    @app.task  # type: ignore[untyped-decorator]
    async def sink_dimensions() -> None:
        sink = TableSink(
            settings,
            worker.clickhouse,
            app.lease,
            topic=topics.DIMENSIONS.name,
            group=topics.GROUP_DIMENSIONS,
            table=DIMENSION_TABLE,
            read=decode_rows,
            to_rows=partial(dimension_rows, erased=worker.erased),
            interval_s=_DIMENSIONS_INTERVAL_S,
        )
        await or_crash("store", sink.run())

    @app.task  # type: ignore[untyped-decorator]
    async def listen_dimensions() -> None:
        await or_crash("store", listen(settings, worker.clickhouse, worker.dimensions, worker.erased))

    @app.task  # type: ignore[untyped-decorator]
    async def log_blocks() -> None:
        await or_crash("store", worker.block_log.run())

    @app.task  # type: ignore[untyped-decorator]
    async def account() -> None:
        await or_crash("store", Accountant(settings, worker.clickhouse, app.lease).run())

    return app
