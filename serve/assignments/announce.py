"""Stored writes, published to Kafka as ``assignment.telemetry``: at least once each, whatever dies in between.

A process that writes lives under a name, and numbers its inserts; each row says both. The registry knows up to which
insert a life has published. What one that died, or one whose insert had no known outcome, left unpublished, another
process reads from ClickHouse and publishes: so whatever is stored is told, and nothing that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import xxhash
from uuid_utils import uuid7

from midstream.assignments.event import encode_write, key_of
from midstream.assignments.rows import PlacedWrite
from midstream.assignments.stored import Rows, read_written
from midstream.clickhouse.client import ClickHouseError
from midstream.kafka.producer import Life as ProducerLife
from midstream.kafka.producer import Producer, ProducerUnavailable
from midstream.logs import get_logger
from midstream.metrics import ASSIGNMENTS_PUBLISHED, ASSIGNMENTS_UNPUBLISHED
from midstream.registry.academies.writers import WriterInfo, Writers
from midstream.registry.errors import RegistryUnavailable
from midstream.settings import Settings
from midstream.topics import ASSIGNMENT

P = ParamSpec("P")
T = TypeVar("T")

_log = get_logger(__name__)

MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Of writes that wait to be published; beyond it they are read from ClickHouse later."""

_TELL_S = 5.0  # how often the registry hears how far a life has published
_SILENT_S = 20.0  # beyond the longest insert: only then is a life's last one surely decided
_SWEEP_S = 10.0
_RETRY_S = 1.0
_STOP_S = 5.0
_INSERTS_AT_ONCE = 2  # read back together: each may have some MiB


class Insert:
    """One insert of a life, by its number."""

    def __init__(self, announcer: Announcer, life: _Life, batch: int) -> None:
        self._announcer = announcer
        self._life = life
        self.batch = batch
        self._begun = False
        self._placed: Sequence[PlacedWrite] | None = None

    @property
    def writer(self) -> str:
        """The life's name."""
        return self._life.name

    def begin(self) -> None:
        """Say that rows may be stored from here on."""
        self._begun = True

    def stored(self, placed: Sequence[PlacedWrite]) -> None:
        """Say that these are stored, and are to be published."""
        self._placed = placed

    def end(self) -> None:
        """Tell the announcer what became of it."""
        if self._placed is not None:
            self._announcer.hand_over(self._life, self.batch, self._placed)
        elif self._begun:
            self._announcer.retire(self._life)
        else:
            self._life.settle(self.batch)


class _Life:
    """Numbers inserts, and knows up to which of them all are published. Threads share it."""

    def __init__(self) -> None:
        self.name = str(uuid7())
        self.told: int | None = None
        """What the registry knows; None: not even the life."""
        self.retired = False
        self._lock = threading.Lock()
        self._last = 0
        self._published = 0
        self._ahead: set[int] = set()

    def number(self) -> int:
        """Return the number of the next insert."""
        with self._lock:
            self._last += 1
            return self._last

    def settle(self, batch: int) -> None:
        """Say that nothing of an insert is left to be published."""
        with self._lock:
            self._ahead.add(batch)
            while self._published + 1 in self._ahead:
                self._published += 1
                self._ahead.discard(self._published)

    @property
    def published(self) -> int:
        """All inserts up to this one are."""
        return self._published

    @property
    def is_done(self) -> bool:
        """Whether all of its inserts are published."""
        with self._lock:
            return self._published == self._last


class _Waiting(NamedTuple):
    life: _Life
    batch: int
    placed: Sequence[PlacedWrite]
    size_bytes: int


class Announcer:
    """Belongs to one event loop; :meth:`insert` is for the threads that write."""

    def __init__(self, settings: Settings, producer: Producer, writers: Writers, rows: Rows) -> None:
        self._writers = writers
        self._rows = rows
        self._timeout_s = settings.kafka_timeout_ms / 1000
        self._dead_after = timedelta(seconds=settings.clickhouse_timeout_ms / 1000 + _SILENT_S)
        self._producer = producer
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="announce")
        self._life = _Life()
        self._beginning = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._queue_bytes = 0
        self._behind = False
        self._more = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; Kafka and the registry may come later."""
        self._loop = asyncio.get_running_loop()
        await self._producer.start()
        self._tasks = [
            asyncio.create_task(self._keep_publishing(), name="announce"),
            asyncio.create_task(self._keep_telling(), name="announce-tell"),
            asyncio.create_task(self._keep_sweeping(), name="announce-sweep"),
        ]

    async def close(self) -> None:
        """Publish what waits, for some seconds while Kafka is there; what is left another process publishes, or the
        next start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self._queue and self._producer.ready:  # noqa: ASYNC110  nothing else waits for this
                    await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        life = self._life
        if life.told is not None:
            with contextlib.suppress(RegistryUnavailable, TimeoutError):
                if life.is_done:
                    await self._in_thread(self._writers.end, life.name)
                else:
                    await self._tell(life)
        ASSIGNMENTS_UNPUBLISHED.dec(sum(len(one.placed) for one in self._queue))
        self._queue.clear()
        await self._producer.stop(_STOP_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def insert(self) -> Iterator[Insert]:
        """Number an insert, and publish what is said to be stored in it. Blocks.

        Raises:
            RegistryUnavailable: the registry cannot be told of this life.
        """
        with self._beginning:
            life = self._life
            if life.told is None:
                self._writers.begin(life.name, datetime.now(UTC))
                life.told = 0
            insert = Insert(self, life, life.number())
        try:
            yield insert
        finally:
            insert.end()

    def hand_over(self, life: _Life, batch: int, placed: Sequence[PlacedWrite]) -> None:
        """Take stored writes to be published. From any thread."""
        assert self._loop is not None  # noqa: S101  it was started
        waiting = _Waiting(life, batch, placed, sum(one.write.size_bytes for one in placed))
        self._loop.call_soon_threadsafe(self._take, waiting)

    def retire(self, life: _Life) -> None:
        """Number no more inserts of this life: what it has not published is to be read from ClickHouse, which alone
        knows what of it is stored. From any thread."""
        with self._beginning:
            life.retired = True
            if self._life is life:
                self._life = _Life()

    def _take(self, waiting: _Waiting) -> None:
        if self._queue and self._queue_bytes + waiting.size_bytes > MAX_WAITING_BYTES:
            self._behind = True
        if self._behind:
            return  # it stays unpublished in its life, which is retired as soon as Kafka takes records again
        self._queue.append(waiting)
        self._queue_bytes += waiting.size_bytes
        ASSIGNMENTS_UNPUBLISHED.inc(len(waiting.placed))
        self._more.set()

    async def _keep_publishing(self) -> None:
        while True:
            if not self._queue:
                self._more.clear()
                if self._behind:
                    self._behind = False
                    self.retire(self._life)
                await self._more.wait()
            waiting = self._queue[0]
            if not await self._publish(waiting.placed):
                await asyncio.sleep(_RETRY_S)
                continue
            self._queue.popleft()
            self._queue_bytes -= waiting.size_bytes
            ASSIGNMENTS_UNPUBLISHED.dec(len(waiting.placed))
            waiting.life.settle(waiting.batch)

    async def _publish(self, placed: Sequence[PlacedWrite]) -> bool:
        """Tell whether Kafka has acknowledged all of these writes."""
        try:
            producer = self._producer.life()
            partitions = producer.partitions(ASSIGNMENT.name)
            deliveries = [await self._hand_to(producer, partitions, one) for one in placed]
        except ProducerUnavailable:
            return False
        if deliveries:
            await asyncio.wait(deliveries, timeout=self._timeout_s)  # leaves them uncancelled: the producer holds them
        if not all(one.done() and one.exception() is None for one in deliveries):
            producer.stall()
            return False
        ASSIGNMENTS_PUBLISHED.inc(len(placed))
        return True

    async def _hand_to(self, producer: ProducerLife, partitions: int, placed: PlacedWrite) -> asyncio.Future[object]:
        key = key_of(placed.write.key)
        partition = xxhash.xxh3_64_intdigest(key) % partitions
        return await producer.hand_over(ASSIGNMENT.name, partition, key, encode_write(placed), [])

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            with contextlib.suppress(RegistryUnavailable, TimeoutError):
                await self._tell(self._life)

    async def _tell(self, life: _Life) -> None:
        """Keep in the registry how far a life has published, and that it lives."""
        if life.told is None:
            return
        published = life.published
        if await self._in_thread(self._writers.progress, life.name, published, datetime.now(UTC)):
            life.told = published
        else:
            _log.warning("assignments.life_taken_over", life=life.name)
            self.retire(life)

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            if not self._producer.ready:
                continue
            try:
                for left in await self._in_thread(self._writers.abandoned, datetime.now(UTC) - self._dead_after):
                    await self._publish_left(left)
            except (RegistryUnavailable, ClickHouseError, TimeoutError) as error:
                _log.warning("assignments.sweep_failed", error=str(error) or type(error).__name__)

    async def _publish_left(self, left: WriterInfo) -> None:
        """Publish what a life that has ended left unpublished, unless another process does."""
        if not await self._in_thread(self._writers.claim, left.id, left.seen_at, datetime.now(UTC)):
            return
        published, told = left.published, 0
        while found := await self._in_thread(
            read_written, self._rows, left.id, after=published, inserts=_INSERTS_AT_ONCE
        ):
            if not await self._publish([placed for _, placed in found]):
                return  # Kafka is away: some time later
            published, told = found[-1][0], told + len(found)
            if not await self._in_thread(self._writers.progress, left.id, published, datetime.now(UTC), claimed=True):
                return
        await self._in_thread(self._writers.end, left.id)
        _log.info("assignments.published_late", life=left.id, writes=told)

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with asyncio.timeout(self._timeout_s):  # wait_for() of Python 3.11 can lose a cancellation
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **kwargs))
