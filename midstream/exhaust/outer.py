"""The zip around the files of several days, by arithmetic: any byte of it follows from the days' sizes and CRCs. Pure.

Each entry is one day's file. Its data is DEFLATE, all of it stored blocks: these may stand in a stream whose length is
not yet known, as method STORED may not, and they say at which byte of the archive each byte of the file lies. So an
archive can be sent while its last day is still being built, and any range of a finished one can be made without
reading what is before. Libraries that stream zips (stream-zip, zipstream-ng) read every entry from its beginning to
make any of its bytes, hence these lines of our own.

Sources: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.9 (data descriptor), 4.3.12 (directory), 4.3.14
to 4.3.16 (its ends), 4.5.3 (zip64); RFC 1951, section 3.2.4 (stored blocks).

Zip64 is used where a number needs it, and only there. The local header never depends on the size. A descriptor has
8-byte sizes if one of them is above 4 GiB - 1: java.util.zip and Go's archive/zip write and read it so, and before
JDK-8303866 ZipInputStream refused 8-byte sizes of small entries.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import accumulate
from typing import Final, NamedTuple

BLOCK_BYTES: Final = 32_768
"""Of data in a stored block; the last one of a file may have fewer."""

_FINAL_BLOCK: Final = b"\x01\x00\x00\xff\xff"
_FRAME_BYTES: Final = 5  # before each block: its type, its length, the length's complement
_FULL_FRAME: Final = b"\x00" + struct.pack("<HH", BLOCK_BYTES, BLOCK_BYTES ^ 0xFFFF)

_DEFLATED: Final = 8
_DESCRIPTOR_FOLLOWS: Final = 0x0008
_NEEDED: Final = 20  # version 2.0: DEFLATE
_NEEDED_ZIP64: Final = 45
_MADE_BY: Final = 3 << 8 | _NEEDED_ZIP64  # Unix, so that the mode below counts
_MODE: Final = 0o100644 << 16
_MAX16: Final = 0xFFFF
_MAX32: Final = 0xFFFFFFFF
_FIRST_YEAR, _LAST_YEAR = 1980, 2107

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")


class Entry(NamedTuple):
    """A day's file: its name in the archive, its day, its size in bytes and its CRC-32."""

    name: str
    day: date
    size: int
    crc32: int


class Slice(NamedTuple):
    """The bytes ``start`` to ``stop`` (exclusive) of the file of entry number ``entry``."""

    entry: int
    start: int
    stop: int


def encoded_bytes(size: int) -> int:
    """Return how many bytes a file of ``size`` bytes takes up as stored blocks."""
    return size + _FRAME_BYTES * (-(-size // BLOCK_BYTES) + 1)


def offset_in_blocks(position: int) -> int:
    """Return where in its stored blocks the byte number ``position`` of a file is."""
    return position + _FRAME_BYTES * (position // BLOCK_BYTES + 1)


def header(name: str, day: date) -> bytes:
    """Return what stands before an entry's data. It is the same whatever the data is.

    Raises:
        ValueError: a zip archive can have no such day.
    """
    encoded = name.encode("ascii")
    return (
        _LOCAL.pack(b"PK\x03\x04", _NEEDED, _DESCRIPTOR_FOLLOWS, _DEFLATED, 0, _dos_date(day), 0, 0, 0, len(encoded), 0)
        + encoded
    )


class Framer:
    """Makes stored blocks of a file that comes in pieces of any size; holds less than one block."""

    def __init__(self) -> None:
        self.size = 0
        self._held = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return the blocks that ``data`` completes."""
        self.size += len(data)
        self._held += data
        whole = len(self._held) // BLOCK_BYTES
        framed = bytearray()
        with memoryview(self._held) as view:
            for start in range(0, whole * BLOCK_BYTES, BLOCK_BYTES):
                framed += _FULL_FRAME
                framed += view[start : start + BLOCK_BYTES]
        del self._held[: whole * BLOCK_BYTES]
        return bytes(framed)

    def finish(self) -> bytes:
        """Return the last blocks, once nothing follows."""
        rest = bytes(self._held)
        self._held.clear()
        return (_frame(len(rest)) + rest if rest else b"") + _FINAL_BLOCK


def descriptor(crc32: int, size: int) -> bytes:
    """Return what stands after an entry's data."""
    encoded = encoded_bytes(size)
    return struct.pack("<4sIQQ" if encoded > _MAX32 else "<4sIII", b"PK\x07\x08", crc32, encoded, size)


def trailer(entries: Sequence[Entry], comment: bytes) -> bytes:
    """Return what stands after all entries: the directory, its ends, the archive's comment.

    Raises:
        ValueError: the comment has more than 65,535 bytes, or a zip archive can have no such day.
    """
    if len(comment) > _MAX16:
        raise ValueError(f"a zip archive's comment can have {_MAX16} bytes at most, not {len(comment)}")
    offsets = _offsets(entries)
    directory = b"".join(_central(entry, offset) for entry, offset in zip(entries, offsets, strict=False))
    count, size, start = len(entries), len(directory), offsets[-1]
    ends = b""
    if count >= _MAX16 or size >= _MAX32 or start >= _MAX32:
        ends = _END64.pack(
            b"PK\x06\x06", _END64.size - 12, _MADE_BY, _NEEDED_ZIP64, 0, 0, count, count, size, start
        ) + _LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1)
    few = min(count, _MAX16)
    ends += _END.pack(b"PK\x05\x06", 0, 0, few, few, min(size, _MAX32), min(start, _MAX32), len(comment))
    return directory + ends + comment


class Layout:
    """Where each byte of a finished archive is: in a day's file, or made here.

    Args:
        entries: the days, in their order.
        comment: the archive's, at most 65,535 bytes.

    Raises:
        ValueError: the comment is longer, or a zip archive can have no such day.
    """

    def __init__(self, entries: Sequence[Entry], comment: bytes) -> None:
        self._entries = tuple(entries)
        self._offsets = _offsets(self._entries)
        self._trailer = trailer(self._entries, comment)
        self.total_bytes = self._offsets[-1] + len(self._trailer)

    def pieces(self, start: int, stop: int) -> Iterator[bytes | Slice]:
        """Yield the bytes ``start`` to ``stop`` (exclusive) of the archive; none is empty.

        Raises:
            ValueError: the archive has no such range.
        """
        if not 0 <= start <= stop <= self.total_bytes:
            raise ValueError(f"the archive has the bytes 0 to {self.total_bytes}, not {start} to {stop}")
        return self._pieces(start, stop)

    def span(self, entry: int) -> tuple[int, int]:
        """Return where in the archive entry number ``entry`` begins, and where what follows it does."""
        return self._offsets[entry], self._offsets[entry + 1]

    def data_start(self, entry: int) -> int:
        """Return where in the archive the stored blocks of entry number ``entry`` begin."""
        return self._offsets[entry] + _LOCAL.size + len(self._entries[entry].name)

    def _pieces(self, start: int, stop: int) -> Iterator[bytes | Slice]:
        at = start
        index = bisect_right(self._offsets, start) - 1
        while at < stop and index < len(self._entries):
            for piece, length in self._entry(index, at - self._offsets[index]):
                cut = min(length, stop - at)
                if isinstance(piece, Slice):
                    yield piece._replace(stop=piece.start + cut)
                else:
                    yield piece[:cut]
                at += cut
                if at == stop:
                    return
            index += 1
        if at < stop:
            yield self._trailer[at - self._offsets[-1] : stop - self._offsets[-1]]

    def _entry(self, index: int, skip: int) -> Iterator[tuple[bytes | Slice, int]]:
        """Yield an entry's pieces and their lengths from its byte number ``skip`` on."""
        entry = self._entries[index]
        head = header(entry.name, entry.day)
        if skip < len(head):
            yield head[skip:], len(head) - skip
        skip = max(skip - len(head), 0)
        block, within = divmod(skip, _FRAME_BYTES + BLOCK_BYTES)
        for start in range(block * BLOCK_BYTES, entry.size, BLOCK_BYTES):
            size = min(BLOCK_BYTES, entry.size - start)
            if within < _FRAME_BYTES:
                yield _frame(size)[within:], _FRAME_BYTES - within
            behind = max(within - _FRAME_BYTES, 0)
            if behind < size:
                yield Slice(index, start + behind, start + size), size - behind
            within = 0
        tail = _FINAL_BLOCK + descriptor(entry.crc32, entry.size)
        behind = max(skip - (encoded_bytes(entry.size) - len(_FINAL_BLOCK)), 0)
        if behind < len(tail):
            yield tail[behind:], len(tail) - behind


def _frame(size: int) -> bytes:
    """Return what stands before a stored block of ``size`` bytes that is not the last one."""
    return _FULL_FRAME if size == BLOCK_BYTES else b"\x00" + struct.pack("<HH", size, size ^ 0xFFFF)


def _offsets(entries: Sequence[Entry]) -> list[int]:
    """Return where each entry begins, and at last where the directory does."""
    sizes = (
        len(header(entry.name, entry.day)) + encoded_bytes(entry.size) + len(descriptor(entry.crc32, entry.size))
        for entry in entries
    )
    return list(accumulate(sizes, initial=0))


def _central(entry: Entry, offset: int) -> bytes:
    """Return an entry's part of the directory."""
    name, encoded = entry.name.encode("ascii"), encoded_bytes(entry.size)
    # In this order, and those alone whose 4-byte field says that they are here (APPNOTE 4.5.3).
    large = [number for number in (entry.size, encoded, offset) if number >= _MAX32]
    extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    return (
        _CENTRAL.pack(
            b"PK\x01\x02",
            _MADE_BY,
            _NEEDED_ZIP64 if large else _NEEDED,
            _DESCRIPTOR_FOLLOWS,
            _DEFLATED,
            0,
            _dos_date(entry.day),
            entry.crc32,
            min(encoded, _MAX32),
            min(entry.size, _MAX32),
            len(name),
            len(extra),
            0,
            0,
            0,
            _MODE,
            min(offset, _MAX32),
        )
        + name
        + extra
    )


def _dos_date(day: date) -> int:
    """Return a day as MS-DOS has it; the time of day beside it is always 00:00."""
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise ValueError(f"a zip archive's days are of the years {_FIRST_YEAR} to {_LAST_YEAR}, not {day.year}")
    return (day.year - _FIRST_YEAR) << 9 | day.month << 5 | day.day
