"""What was read of a source, whole, in a file on disk: nothing is published of a source that fails half way.

The file has no name, so the system frees it when it is closed and when the process dies, however it dies. It is lost
then, and the source is read again.
"""

from __future__ import annotations

import os
import secrets
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import msgspec

from midstream.dimensions import MAX_VERSION, Dimension, DimensionType, now_ms
from midstream.logs import get_logger
from midstream.metrics import SOURCE_READ_SECONDS, SOURCE_ROWS
from midstream.settings import KIB, MIB, Settings
from midstream.sources.errors import SourceCode, SourceError
from midstream.sources.gone import Gone, Known, Seen, in_blocks
from midstream.sources.reading import Item, Refused, Source

_log = get_logger(__name__)

MAX_REFUSALS = 100
"""Refused rows that are named; more are counted."""

_BLOCK_ROWS = 1_000
_BLOCK_BYTES = 1 * MIB
_BUFFER_BYTES = 256 * KIB
_KNOWN_AT_ONCE = 10_000
_LENGTH = struct.Struct("<I")

Progress = Callable[[int], None]


class _Row(msgspec.Struct, array_like=True):
    id: str
    attributes: str
    version: int
    deleted: bool
    updated_at_ms: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Row)


@dataclass(frozen=True, slots=True)
class Compared:
    """What is known, beside what came."""

    known: int
    """Objects that were compared."""
    tombstones: int
    """Rows that were added for those that the source has no more."""
    withheld: int
    """Tombstones that were not added, as rows were refused of which it cannot be told whose they are."""
    older: int
    """Objects whose row has a lower version than is known: it is published, and loses."""
    restored: int
    """Objects that are deleted, and came: their row is published under a version above that of the tombstone."""


class Staged:
    """The rows of one read. Close it: then they are gone. Not for several threads at once.

    Attributes:
        type: of which objects.
        ids: what was asked for; None: all.
        began_ms: when the read began, in epoch milliseconds. What was pushed since is not in it, and must not be
            compared with it.
        rows: rows that were taken, those of the source's own deletions among them.
        refused: rows that were not.
        refusals: the first :data:`MAX_REFUSALS` of them.
        whole: whether what did not come is not in the source.
        watermark: what to give as ``since`` next time, once all rows are published; None: the source has no such thing.
    """

    def __init__(self, type_: DimensionType, ids: Sequence[str] | None, settings: Settings) -> None:
        self.type = type_
        self.ids = ids
        self.began_ms = now_ms()
        self.rows = 0
        self.refused = 0
        self.refusals: list[Refused] = []
        self.whole = False
        self.watermark: str | None = None
        self._max_bytes = settings.sync_staging_bytes
        self._max_rows = settings.sync_staging_rows
        self._size_bytes = 0
        self._of_anybody = 0
        self._restored: dict[str, tuple[int, int]] = {}
        self._seen = Seen(secrets.randbits(63))
        self._asked: dict[str, tuple[int, bool]] = {}  # id -> highest version that came, and whether it is an object
        with _staging_failures():
            settings.home.mkdir(parents=True, exist_ok=True)
            # Open for as long as this lives; `close` ends it.
            self._file = tempfile.TemporaryFile(dir=settings.home, buffering=_BUFFER_BYTES)  # noqa: SIM115

    def __enter__(self) -> Staged:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the rows from the disk; done again, it changes nothing."""
        try:
            self._file.close()
        except OSError:  # what could not be written is not wanted any more
            _log.debug("staging.unwritten")

    def add(self, block: Sequence[Item]) -> None:
        """Take rows of the source.

        Raises:
            SourceError: they are too many, or the disk does not take them.
        """
        taken = [item for item in block if isinstance(item, Dimension)]
        for item in block:
            if isinstance(item, Refused):
                self._refuse(item)
        for row in taken:
            if not row.deleted:
                self._seen.add(row.id, row.version)
            if self.ids is not None and row.version >= self._asked.get(row.id, (-1, False))[0]:
                self._asked[row.id] = (row.version, not row.deleted)
        self.rows += len(taken)
        if self.rows + self.refused > self._max_rows:
            raise _too_large("rows", "MIDSTREAM_SYNC_STAGING_ROWS", self._max_rows)
        self._write(taken)
        SOURCE_ROWS.labels(self.type, "taken").inc(len(taken))
        SOURCE_ROWS.labels(self.type, "refused").inc(len(block) - len(taken))

    def compare(self, known: Iterable[Known], min_share: float, *, force: bool = False) -> Compared:
        """Compare with what is known: add a tombstone for each object that did not come, unless the read was one of
        changes only, and raise the version of each that came and is deleted. Call it before the rows are taken out.

        Args:
            known: the rows of ``dimensions`` of this type (of the ids that were asked for), tombstones too, that were
                not written after :attr:`began_ms`; in any order, each id once.
            min_share: the least share of them that a read of all must hold.
            force: take a read that holds less; add tombstones though rows were refused that could be anybody's.

        Raises:
            SourceError: SOURCE_SHRUNK, and nothing is to be published; STAGING_FAILED, SOURCE_TOO_LARGE.
        """
        gone = Gone(self.type, self._seen, now_ms())
        withhold = not self.whole or (self._of_anybody > 0 and not force)
        tombstones = 0
        came_bytes = self._size_bytes
        with _staging_failures():
            self._file.seek(0, os.SEEK_END)
        try:
            for block in in_blocks(known, _KNOWN_AT_ONCE):
                rows = gone.compare(block)
                if not withhold:
                    self._write(rows)
                    tombstones += len(rows)
            if self.whole and self.ids is None and not force:
                gone.check(min_share)
        except BaseException:
            self._size_bytes = came_bytes  # without tombstones again
            raise
        self._restored = gone.restored
        withheld = gone.gone - tombstones if self.whole else 0
        return Compared(gone.known, tombstones, withheld, gone.older, len(gone.restored))

    def blocks(self) -> Iterator[list[Dimension]]:
        """Yield all rows in the order in which they came, then the tombstones, some at a time.

        One iteration at a time; it may be begun again.

        Raises:
            SourceError: STAGING_FAILED, the disk does not give them back.
        """
        with _staging_failures():
            self._file.seek(0)
        left = self._size_bytes
        while left:
            block: list[Dimension] = []
            size = 0
            while left and len(block) < _BLOCK_ROWS and size < _BLOCK_BYTES:
                with _staging_failures():
                    data = self._file.read(_LENGTH.size)
                    (length,) = _LENGTH.unpack(data)
                    row = _decoder.decode(self._file.read(length))
                version = row.version
                if not row.deleted and row.id in self._restored:
                    came, needed = self._restored[row.id]
                    version = needed if version == came else version
                block.append(Dimension(self.type, row.id, row.attributes, version, row.deleted, row.updated_at_ms))
                size += _LENGTH.size + length
                left -= _LENGTH.size + length
            yield block

    def answers(self) -> dict[str, bool]:
        """Return for each id that was asked for whether the source has it, in a row that could be taken."""
        return {id_: self._asked.get(id_, (0, False))[1] for id_ in self.ids or ()}

    def _refuse(self, refused: Refused) -> None:
        self.refused += 1
        if len(self.refusals) < MAX_REFUSALS:
            self.refusals.append(refused)
        if refused.id is None:
            self._of_anybody += 1
        elif refused.id:
            self._seen.add(refused.id, MAX_VERSION)  # it is there, only not to be taken

    def _write(self, rows: Sequence[Dimension]) -> None:
        data = bytearray()
        for row in rows:
            packed = _encoder.encode(_Row(row.id, row.attributes, row.version, row.deleted, row.updated_at_ms))
            data += _LENGTH.pack(len(packed))
            data += packed
        self._size_bytes += len(data)
        if self._size_bytes > self._max_bytes:
            raise _too_large("bytes", "MIDSTREAM_SYNC_STAGING_BYTES", self._max_bytes)
        with _staging_failures():
            self._file.write(data)


def stage(
    source: Source,
    settings: Settings,
    ids: Sequence[str] | None = None,
    since: str | None = None,
    progress: Progress | None = None,
) -> Staged:
    """Read a source to its end. Blocking; not for a thread in which an event loop runs.

    Args:
        source: what to read.
        settings: where the home is, and how much may be staged.
        ids: only these objects; None: all.
        since: a watermark, to read what changed after it. See :meth:`midstream.sources.reading.Source.read`.
        progress: called with the number of rows so far, at least once a block. What it raises ends the read.

    Raises:
        SourceError: it cannot be read to its end, or staged. Nothing of it is left on the disk.
    """
    staged = Staged(source.type, ids, settings)
    began_s = time.monotonic()
    outcome = "failed"
    try:
        reading = source.read(ids, since)
        with closing(reading):
            for block in reading:
                staged.add(block)
                if progress is not None:
                    progress(staged.rows + staged.refused)
        with _staging_failures():
            staged._file.flush()
        staged.whole = reading.whole
        staged.watermark = reading.watermark
        outcome = "read"
    except BaseException:
        staged.close()
        raise
    finally:
        SOURCE_READ_SECONDS.labels(source.type, outcome).observe(time.monotonic() - began_s)
    return staged


@contextmanager
def _staging_failures() -> Iterator[None]:
    try:
        yield
    except (OSError, struct.error, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise SourceError(SourceCode.STAGING_FAILED, f"the disk of the home: {reason or error}") from None


def _too_large(what: str, setting: str, limit: int) -> SourceError:
    return SourceError(SourceCode.SOURCE_TOO_LARGE, f"the source gives more {what} than {setting}, which is {limit}")
