"""A slot in this process's care, and the marks that promise what of it is in Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ingest.publish import NotPublishedError, Publisher
from ingest.received import Received
from ingest.spool.shelf import Shelf
from ingest.spool.slot import Slot, adopt_slot, take_slot
from midstream.kafka.marks import Mark, encode_mark
from midstream.topics import COLLECTORS


class HeldSlot:
    """A locked slot, what lies in it, and its marks. Belongs to one event loop."""

    def __init__(self, slot: Slot, shelf: Shelf, received: Received, *, own: bool) -> None:
        self.slot = slot
        self.shelf = shelf
        self._received = received
        self._own = own
        self._lock = asyncio.Lock()
        self._unanswered: asyncio.Future[object] | None = None
        self._ended = False

    @classmethod
    async def take(cls, root: Path, received: Received) -> HeldSlot:
        """Take a slot for this process's own batches, those of ``received``.

        Raises:
            OSError: the folder cannot be used.
        """
        return await asyncio.to_thread(lambda: cls._open(take_slot(root), received, own=True))

    @classmethod
    async def adopt(cls, root: Path, name: str, received: Received) -> HeldSlot | None:
        """Take a left-over slot; None when another process was quicker.

        Raises:
            OSError: the folder cannot be used.
        """

        def adopt() -> HeldSlot | None:
            slot = adopt_slot(root, name)
            return None if slot is None else cls._open(slot, received, own=False)

        return await asyncio.to_thread(adopt)

    @classmethod
    def _open(cls, slot: Slot, received: Received, *, own: bool) -> HeldSlot:
        shelf = Shelf(slot.folder)
        try:
            shelf.load()
        except BaseException:
            slot.release()
            raise
        return cls(slot, shelf, received, own=own)

    @property
    def open(self) -> bool:
        """Whether it may accept batches: Kafka has its mark that says so."""
        return self.slot.state.open

    async def publish(self, publisher: Publisher, timeout_s: float) -> bool:
        """Publish the mark of an open slot; return whether Kafka acknowledged it in time. The own slot it opens.

        Raises:
            OSError: the slot cannot remember that it is open.
        """
        async with self._lock:
            if self._ended or not (self.open or self._own):
                return False
            if not self.open:
                await self._remember(is_open=False, settled=False)
            if not await self._publish(publisher, is_open=True, timeout_s=timeout_s):
                return False
            await self._remember(is_open=True, settled=False)
            return True

    async def settle(self, publisher: Publisher, timeout_s: float) -> bool:
        """Close an empty slot for good; return whether Kafka acknowledged the mark in time.

        The slot remembers first: one that is closed and whose mark is not only keeps the low mark back.

        Raises:
            OSError: the slot cannot remember that it is closed.
        """
        async with self._lock:
            self._ended = True
            if self.slot.state.settled:
                return True
            await self._remember(is_open=False, settled=False)
            if not await self._publish(publisher, is_open=False, timeout_s=timeout_s):
                return False
            await self._remember(is_open=False, settled=True)
            return True

    async def _publish(self, publisher: Publisher, *, is_open: bool, timeout_s: float) -> bool:
        if self._unanswered is not None and not self._unanswered.done():
            await asyncio.wait([self._unanswered], timeout=timeout_s)
            if not self._unanswered.done():
                return False  # one at a time: an older one must not overtake
        oldest_ms = self.shelf.oldest_ms
        now_ms = self._received.now_ms()
        if self._own:
            low_ms = self._received.low_ms(oldest_ms)
        else:  # what this process receives is not this slot's
            low_ms = now_ms if oldest_ms is None else min(now_ms, oldest_ms)
        mark = Mark(
            id=self.slot.state.id,
            low_ms=low_ms,
            at_ms=now_ms,
            open=is_open,
            spooled_batches=self.shelf.batches,
            spooled_bytes=self.shelf.bytes,
            oldest_ms=oldest_ms or 0,
        )
        key, value = encode_mark(mark)
        try:
            self._unanswered = await publisher.hand_over(COLLECTORS.name, key, value, [])
        except NotPublishedError:
            return False
        self._unanswered.add_done_callback(_look_at)
        done, _ = await asyncio.wait([self._unanswered], timeout=timeout_s)
        return bool(done) and self._unanswered.exception() is None

    async def _remember(self, *, is_open: bool, settled: bool) -> None:
        await asyncio.to_thread(lambda: self.slot.write(is_open=is_open, settled=settled))

    def release(self) -> None:
        """Let another process have the slot."""
        self._ended = True
        self.slot.release()


def _look_at(delivery: asyncio.Future[object]) -> None:
    """Nobody may be waiting any more; asyncio would complain of an exception that is never looked at."""
    if not delivery.cancelled():
        delivery.exception()
