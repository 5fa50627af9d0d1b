"""Looks after the slots of this process: opens its own, publishes marks, drains, adopts what dead ones have left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ingest.marks import HeldSlot
from ingest.publish import NotPublishedError, Publisher
from ingest.received import Received
from ingest.spool.drain import Drainer
from ingest.spool.slot import find_left_over
from ingest.spool.spool import Spool
from midstream.disks import tell_disk
from midstream.logs import get_logger
from midstream.metrics import SPOOL_BATCHES, SPOOL_BYTES, SPOOL_LIMIT_BYTES, SPOOL_OLDEST_AGE_SECONDS
from midstream.settings import Settings

_log = get_logger(__name__)

_MARK_INTERVAL_S = 1.0
_OPEN_INTERVAL_S = 0.1
_DRAIN_INTERVAL_S = 0.2
_LOOK_INTERVAL_S = 5.0
"""A slot is adopted when two looks in a row find it left over: a process that is started anew gets its own back."""

_SETTLE_TIMEOUT_S = 2.0
_POLL_S = 0.01


class Caretaker:
    """Belongs to one event loop. ``spool`` is there once a slot could be taken."""

    def __init__(self, settings: Settings, publisher: Publisher, received: Received) -> None:
        self.spool: Spool | None = None
        self._settings = settings
        self._root = settings.spool_folder
        self._publisher = publisher
        self._received = received
        self._timeout_s = settings.kafka_timeout_ms / 1000
        self._drainer = Drainer(publisher, self._timeout_s)
        self._own: HeldSlot | None = None
        self._adopted: list[HeldSlot] = []
        self._left_over: set[str] = set()
        self._next_look = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._troubles: dict[str, str] = {}
        SPOOL_LIMIT_BYTES.set(settings.spool_max_bytes)

    @property
    def open(self) -> bool:
        """Whether Kafka knows that this process accepts batches, so that marks wait for them."""
        return self._own is not None and self._own.open

    async def start(self) -> None:
        """Take a slot, and begin. Where that is not possible now, it is tried again."""
        await self._try("marks", self._mark)
        self._tasks = [
            asyncio.create_task(self._publish_marks(), name="marks"),
            asyncio.create_task(self._drain_whenever_possible(), name="drain"),
        ]

    async def stop(self, deadline: float) -> None:
        """Drain and settle as far as Kafka takes it until ``deadline`` by the loop's clock. No batch comes any more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            async with asyncio.timeout_at(deadline):
                await self._finish()
        except (TimeoutError, NotPublishedError, OSError) as error:
            _log.warning("spool.not_emptied", error=str(error) or type(error).__name__)
        self._release_adopted()
        if self.spool is not None:
            await self.spool.close(_SETTLE_TIMEOUT_S)
        if self._own is not None:
            self._own.release()
        self._tell()

    async def _finish(self) -> None:
        if self._own is None or self.spool is None or not self._publisher.ready:
            return
        await self._drainer.drain(self._own.shelf, self.spool.seal)
        # Kafka has what was handed to it, and has not said so yet.
        while not self._received.empty:  # noqa: ASYNC110  at the end of a process only
            await asyncio.sleep(_POLL_S)
        if not self._own.shelf.segments:
            await self._own.settle(self._publisher, _SETTLE_TIMEOUT_S)

    async def _publish_marks(self) -> None:
        while True:
            await asyncio.sleep(_MARK_INTERVAL_S if self.open else _OPEN_INTERVAL_S)
            await self._try("marks", self._mark)

    async def _drain_whenever_possible(self) -> None:
        while True:
            await asyncio.sleep(_DRAIN_INTERVAL_S)
            await self._try("drain", self._drain)

    async def _try(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        try:
            await turn()
        except NotPublishedError:
            return  # Kafka went away: the next turn looks
        except OSError as error:
            self._complain(name, f"{type(error).__name__}: {error}")
        except Exception:  # noqa: BLE001  a task's top: what it does must go on, and a fault is told in the log
            _log.exception("spool.turn_failed", task=name)
        else:
            self._troubles.pop(name, None)

    def _complain(self, name: str, trouble: str) -> None:
        if self._troubles.get(name) != trouble:  # one line for one thing, not one a turn
            self._troubles[name] = trouble
            _log.error("spool.trouble", task=name, folder=str(self._root), error=trouble)

    async def _mark(self) -> None:
        if self._own is None:
            self._own = await HeldSlot.take(self._root, self._received)
            self.spool = Spool(self._own.shelf, self._settings)
        if self._publisher.ready:
            held = [self._own, *self._adopted]
            await asyncio.gather(*(one.publish(self._publisher, self._timeout_s) for one in held))
        self._tell()
        await asyncio.to_thread(tell_disk, "spool", self._root)

    async def _drain(self) -> None:
        if self._own is None or self.spool is None:
            return
        if not self._publisher.ready:
            # Their processes may come back, and can accept with Kafka away if they get their slots.
            self._release_adopted()
            return
        await self._drainer.drain(self._own.shelf, self.spool.seal)
        await self._look_around()
        for held in tuple(self._adopted):
            await self._drainer.drain(held.shelf)
            if held.shelf.empty:  # a file that Kafka has would be drained again by whoever adopts it next
                self._adopted.remove(held)
                try:
                    await held.settle(self._publisher, self._timeout_s)
                finally:
                    held.release()

    async def _look_around(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_INTERVAL_S
        found = set(await asyncio.to_thread(find_left_over, self._root))
        for name in sorted(found & self._left_over, key=int):
            held = await HeldSlot.adopt(self._root, name, self._received)
            if held is not None:
                _log.info("spool.adopted", slot=name, batches=held.shelf.batches)
                self._adopted.append(held)
        self._left_over = found

    def _release_adopted(self) -> None:
        for held in self._adopted:
            held.release()
        self._adopted.clear()

    def _tell(self) -> None:
        shelves = [held.shelf for held in (self._own, *self._adopted) if held is not None]
        SPOOL_BYTES.set(sum(shelf.bytes for shelf in shelves))
        SPOOL_BATCHES.set(sum(shelf.batches for shelf in shelves))
        oldest = [shelf.oldest_ms for shelf in shelves if shelf.oldest_ms is not None]
        SPOOL_OLDEST_AGE_SECONDS.set((self._received.now_ms() - min(oldest)) / 1000 if oldest else 0)
