"""Segment files of the spool: one that is written to, and those that are read, mended and removed. All calls block.

A segment is named ``<number>-<seed>.v1.spool``. It grows at its end only, and is never opened for writing again
once it was closed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingest.spool.format import FILE_HEAD_BYTES, Record, file_head, is_torn, pack, scan
from midstream.logs import get_logger
from midstream.metrics import SPOOL_DAMAGED_BYTES

_log = get_logger(__name__)

DAMAGED = "damaged"
"""Folder beside the segments for what of them could not be read, or is refused by Kafka."""

_NAME = re.compile(r"(\d{20})-([0-9a-f]{16})\.v1\.spool")
_MAX_PIECES = 1000  # IOV_MAX is 1024 on Linux and macOS
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class WriteFailedError(Exception):
    """Nothing of the records is in the segment, which is as it was before. ``errno`` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.errno = error.errno


class SyncFailedError(Exception):
    """Whether the records are on the disk is not known; the segment must not be written to again.

    After a failed fsync the kernel may count pages as written that are not (LWN 752063, "PostgreSQL's fsync()
    surprise"), so that a second fsync would promise what is not there.
    """


@dataclass(slots=True)
class SegmentFile:
    """A segment: where it is, and the records that are known to be in it."""

    number: int
    path: Path
    seed: int
    size: int = 0
    """Bytes of the file that count: records beyond were never promised."""
    batches: int = 0
    oldest_ms: int | None = None
    failures: int = 0
    """Times in a row that the disk did not let it be read or deleted."""
    rests_until: float = 0.0
    """Monotonic: it is not tried before."""
    one_by_one: bool = False
    """Kafka has refused something of it."""

    def add(self, size: int, batches: int, oldest_ms: int) -> None:
        """Count records that are durable now."""
        self.size += size
        self.batches += batches
        self.oldest_ms = oldest_ms if self.oldest_ms is None else min(self.oldest_ms, oldest_ms)


def list_segments(folder: Path) -> list[SegmentFile]:
    """Return the segments in a folder in the order of their numbers, not yet looked into."""
    found = []
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            found.append(SegmentFile(int(match[1]), path, int(match[2], 16), path.stat().st_size))
        elif path.suffix == ".spool":
            _log.error("spool.segment_unknown", path=str(path))  # a newer version's: kept for it
    return sorted(found, key=lambda segment: segment.number)


class SegmentWriter:
    """The one segment of a spool that grows."""

    def __init__(self, folder: Path, number: int) -> None:
        """Create the file, durably.

        Raises:
            WriteFailedError: it cannot be created.
        """
        seed = int.from_bytes(os.urandom(8), "big")
        path = folder / f"{number:020}-{seed:016x}.v1.spool"
        self.file = SegmentFile(number, path, seed, FILE_HEAD_BYTES)
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _write_all(self._fd, [file_head(seed)])
            sync_folder(folder)
        except OSError as error:
            self.close()
            with suppress(OSError):
                path.unlink()
            raise WriteFailedError(error) from error

    def append(self, pieces: Sequence[bytes]) -> None:
        """Return when the pieces are on the disk behind all that was there.

        Raises:
            WriteFailedError: nothing of them is; the segment can be written to again.
            SyncFailedError: not known; the segment has been closed.
        """
        try:
            _write_all(self._fd, pieces)
        except OSError as error:
            self._cut_back()
            raise WriteFailedError(error) from error
        try:
            _sync_data(self._fd)
        except OSError as error:
            with suppress(SyncFailedError):
                self._cut_back()
            self.close()
            raise SyncFailedError(error.strerror or str(error)) from error

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.file.size)
            _sync_data(self._fd)
        except OSError as error:
            self.close()
            raise SyncFailedError(error.strerror or str(error)) from error

    def close(self) -> None:
        """Close the file; done again, it changes nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_segment(segment: SegmentFile) -> Iterator[Record]:
    """Return the records of a segment that is not written to, having put its damage aside.

    A record at the end that was not written whole was never promised, and is cut off.

    Raises:
        OSError: the file cannot be read or mended.
    """
    data = segment.path.read_bytes()
    for part in scan(data, segment.seed):
        if isinstance(part, Record):
            yield part
        elif part.end == len(data) and is_torn(data[part.start :], segment.seed):
            _log.info("spool.torn_record_dropped", segment=segment.path.name, bytes=part.end - part.start)
            _cut_off(segment.path, part.start)
        else:
            _set_aside("spool.damaged", segment, part.start, data[part.start : part.end])


def recover_segment(segment: SegmentFile) -> None:
    """Look through a segment that another process, or an earlier life, has left.

    Raises:
        OSError: the file cannot be read or mended.
    """
    batches, oldest_ms = 0, None
    for record in read_segment(segment):
        batches += 1
        oldest_ms = record.received_at_ms if oldest_ms is None else min(oldest_ms, record.received_at_ms)
    segment.batches, segment.oldest_ms = batches, oldest_ms
    segment.size = segment.path.stat().st_size


def _cut_off(path: Path, size: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(segment: SegmentFile, record: Record) -> None:
    """Keep a record that Kafka refuses, whole, beside the segments: put back under a segment's name, it is read again.

    Raises:
        OSError: it cannot be written.
    """
    data = b"".join(pack(segment.seed, record.received_at_ms, record.key, record.receipt, record.body))
    _set_aside("spool.record_refused", segment, record.start, data)


def _set_aside(why: str, segment: SegmentFile, at: int, data: bytes) -> None:
    folder = segment.path.parent / DAMAGED
    folder.mkdir(mode=0o700, exist_ok=True)
    kept = folder / f"{segment.path.stem}-{at}"
    if kept.exists() and kept.stat().st_size == len(data):
        return  # this reading is not the first
    write_durably(kept, data)
    _log.error(why, segment=segment.path.name, at=at, bytes=len(data), kept=str(kept))
    SPOOL_DAMAGED_BYTES.inc(len(data))


def write_durably(path: Path, data: bytes) -> None:
    """Write a file, all of it or nothing, so that it survives the machine.

    Raises:
        OSError: it cannot be written; a file that was there before is as it was.
    """
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, [data])
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, pieces: Sequence[bytes]) -> None:
    for start in range(0, len(pieces), _MAX_PIECES):
        some = pieces[start : start + _MAX_PIECES]
        written = os.writev(fd, some)
        size = sum(map(len, some))
        if written < size:
            _write_rest(fd, memoryview(b"".join(some))[written:])


def _write_rest(fd: int, rest: memoryview) -> None:
    """Go on after a short write: the next one says what stopped it, if it was more than chance."""
    while rest:
        rest = rest[os.write(fd, rest) :]
