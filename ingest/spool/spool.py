"""Takes batches into a slot: all that wait share one write and one fdatasync, done in a thread."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from uuid_utils import uuid7

from ingest.spool.format import FILE_HEAD_BYTES, pack, record_bytes
from ingest.spool.segment import SegmentWriter, SyncFailedError, WriteFailedError
from ingest.spool.shelf import Shelf
from midstream.logs import get_logger
from midstream.metrics import SPOOL_REFUSED_BATCHES, SPOOLED_BATCHES
from midstream.receipt import Receipt, encode_receipt
from midstream.settings import KIB, Settings

_log = get_logger(__name__)

_WRITE_TIMEOUT_S = 10.0
_REST_S = 1.0  # after a failure, so that a balancer sees it
_OVERHEAD_BYTES = 64 * KIB
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolFullError(Exception):
    """There is no room: nothing of the batch was kept."""


class SpoolFailedError(Exception):
    """The disk did not take the batch: nothing of it was kept."""


class SpoolUnknownError(Exception):
    """The disk did not say that it has the batch: it may come out of the spool or not."""


@dataclass(slots=True, eq=False)
class _Waiting:
    body: bytes
    key: bytes
    received_at_ms: int
    number: Callable[[str, int], Receipt] | None
    """Makes the receipt of a batch that has no number yet."""
    receipt: bytes
    done: asyncio.Future[None]


class Spool:
    """The spool of one process. Belongs to one event loop.

    Batches without a number get one here, as they are written: they count the batches of ``<life>/spool`` from 0
    without a gap. A life ends with the process, or when it is not known what the disk has.
    """

    def __init__(self, shelf: Shelf, settings: Settings) -> None:
        self.shelf = shelf
        self._max_bytes = settings.spool_max_bytes
        self._segment_bytes = settings.spool_segment_bytes
        self._largest_bytes = min(settings.max_body_bytes + _OVERHEAD_BYTES, self._max_bytes // 4)
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._file = asyncio.Lock()
        self._writer: SegmentWriter | None = None
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._overdue_at = float("inf")
        self._resting_until = 0.0
        self._begin_life()

    def _begin_life(self) -> None:
        self._collector = f"{uuid7()}/spool"
        self._next_sequence = 0

    @property
    def full(self) -> bool:
        """Whether there may be no room for a large batch."""
        return self.shelf.bytes + self._waiting_bytes + self._largest_bytes > self._max_bytes

    @property
    def ready(self) -> bool:
        """Whether a batch given now would be kept, as far as is known."""
        now = asyncio.get_running_loop().time()
        return not self.full and self._resting_until <= now < self._overdue_at

    async def append(self, body: bytes, key: bytes, received_at_ms: int, number: Callable[[str, int], Receipt]) -> None:
        """Return when a batch is on the disk; ``number`` makes its receipt from collector and sequence.

        Raises:
            SpoolFullError, SpoolFailedError: it is not kept.
            SpoolUnknownError: not known.
        """
        await self._append(body, key, received_at_ms, number, b"")

    async def append_copy(self, body: bytes, key: bytes, receipt: Receipt) -> None:
        """Return when a batch that has its number is on the disk. Raises as :meth:`append`."""
        await self._append(body, key, receipt.received_at_ms, None, encode_receipt(receipt))

    async def _append(
        self,
        body: bytes,
        key: bytes,
        received_at_ms: int,
        number: Callable[[str, int], Receipt] | None,
        receipt: bytes,
    ) -> None:
        loop = asyncio.get_running_loop()
        if self.shelf.bytes + self._waiting_bytes + len(body) > self._max_bytes:
            SPOOL_REFUSED_BATCHES.inc()
            raise SpoolFullError("no room")
        waiting = _Waiting(body, key, received_at_ms, number, receipt, loop.create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += len(body)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_waiting(), name="spool")
        try:
            await asyncio.wait_for(asyncio.shield(waiting.done), _WRITE_TIMEOUT_S)
        except TimeoutError:
            SPOOL_REFUSED_BATCHES.inc()
            if self._take_back(waiting):
                raise SpoolFailedError("the disk does not answer") from None
            raise SpoolUnknownError("the disk does not answer") from None
        except asyncio.CancelledError:
            self._take_back(waiting)
            raise
        except (SpoolFullError, SpoolFailedError, SpoolUnknownError):
            SPOOL_REFUSED_BATCHES.inc()
            raise
        SPOOLED_BATCHES.inc()

    def _take_back(self, waiting: _Waiting) -> bool:
        """Return whether the batch had not been begun."""
        try:
            self._waiting.remove(waiting)
        except ValueError:
            waiting.done.add_done_callback(_look_at)
            return False
        self._waiting_bytes -= len(waiting.body)
        return True

    async def seal(self) -> None:
        """Write no more to the segment that grows: the next batch begins another."""
        async with self._file:
            self._close_writer()

    async def close(self, timeout_s: float) -> None:
        """Finish what is being written, for at most ``timeout_s``."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=timeout_s)
        if self._writing is None:
            self._close_writer()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                async with self._file:
                    await self._write_group()
        finally:
            self._writing = None

    async def _write_group(self) -> None:
        loop = asyncio.get_running_loop()
        if self._writer is not None and self._writer.file.size >= self._segment_bytes:
            self._close_writer()
        group: list[_Waiting] = []
        try:
            next_sequence, size = self._take_group(group)
            if not group:
                return
            self._overdue_at = loop.time() + _WRITE_TIMEOUT_S / 2
            if self._writer is None:
                number = self.shelf.take_number()
                self._writer = await loop.run_in_executor(self._thread, SegmentWriter, self.shelf.folder, number)
                self.shelf.put(self._writer.file)
            await loop.run_in_executor(self._thread, _write, self._writer, group)
        except WriteFailedError as error:
            self._rest("spool.write_failed", error)
            _fail(group, SpoolFullError if error.errno in _FULL else SpoolFailedError, str(error))
        except SyncFailedError as error:
            self._rest("spool.sync_failed", error)
            self._writer = None
            self._begin_life()
            _fail(group, SpoolUnknownError, str(error))
        else:
            self._next_sequence = next_sequence
            self._writer.file.add(size, len(group), min(waiting.received_at_ms for waiting in group))
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_result(None)
        finally:
            self._overdue_at = float("inf")
            self._waiting_bytes -= sum(len(waiting.body) for waiting in group)
            _fail(group, SpoolUnknownError, "the writer failed")  # none is left, unless by a fault of ours

    def _take_group(self, group: list[_Waiting]) -> tuple[int, int]:
        """Move what is written next from the queue into ``group``; return the sequence after it, and its size."""
        room = self._max_bytes - self.shelf.bytes - (FILE_HEAD_BYTES if self._writer is None else 0)
        sequence, size = self._next_sequence, 0
        while self._waiting and size < self._segment_bytes:
            waiting = self._waiting.popleft()
            group.append(waiting)
            if waiting.number is not None:
                waiting.receipt = encode_receipt(waiting.number(self._collector, sequence))
            more = record_bytes(waiting.key, waiting.receipt, waiting.body)
            if size + more > room:
                self._waiting_bytes -= len(group.pop().body)
                _fail([waiting], SpoolFullError, "no room")
                continue
            sequence += waiting.number is not None
            size += more
        return sequence, size

    def _rest(self, what: str, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._resting_until + _REST_S:
            _log.error(what, folder=str(self.shelf.folder), error=str(error))
        self._resting_until = now + _REST_S


def _write(writer: SegmentWriter, group: Sequence[_Waiting]) -> None:
    seed = writer.file.seed
    pieces = []
    for waiting in group:
        pieces += pack(seed, waiting.received_at_ms, waiting.key, waiting.receipt, waiting.body)
    writer.append(pieces)


def _fail(group: Sequence[_Waiting], kind: type[Exception], message: str) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(kind(message))
            waiting.done.add_done_callback(_look_at)


def _look_at(done: asyncio.Future[None]) -> None:
    """Nobody may be waiting any more; asyncio would complain of an exception that is never looked at."""
    if not done.cancelled():
        done.exception()
