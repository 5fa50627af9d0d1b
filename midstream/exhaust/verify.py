"""Verifies a download: that it is whole, that it is what the manifest says, and that its events are those of its days.

The file is read in pieces: once from its first byte to its last, against the layout that its directory gives, and once
hour by hour. Nothing else is needed, no home and no pipeline.
"""

from __future__ import annotations

import errno
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import BinaryIO, Final

from midstream.exhaust.findings import Report
from midstream.exhaust.hours import HourCounts, judge_hour
from midstream.exhaust.manifest import Contents, FileFacts, ManifestDay, read_comment
from midstream.exhaust.names import HourName, day_name, read_day_name, read_hour_name
from midstream.exhaust.outer import BLOCK_BYTES, Entry, Layout, Slice, offset_in_blocks

Told = Callable[[int], None]

_ARCHIVE: Final = "archive"
_BUFFER_BYTES: Final = 256 * 1024
_LOCAL_HEADER: Final = b"PK\x03\x04"
_END_MARK: Final = b"PK\x05\x06"
_END_BYTES: Final = 22  # without the comment, whose length it ends with
_CHANGED: Final = "differs from what a download has there"
# What zipfile and zlib raise about bytes that are no sound zip.
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error)


def verify(file: BinaryIO, manifest: Sequence[ManifestDay] | None, told: Told) -> Report:
    """Verify a download.

    Args:
        file: the archive, seekable.
        manifest: its days as ``GET .../manifest`` tells of them; None: the archive's comment alone is believed.
        told: takes how many bytes were read since it was last called; twice the archive's in all, or a little less.

    Raises:
        OSError: the file cannot be read.
    """
    report = Report(bytes=file.seek(0, io.SEEK_END))
    try:
        with zipfile.ZipFile(file) as archive:
            infos, comment = archive.infolist(), archive.comment
    except (*_BROKEN, OSError) as error:
        _raise_if_unreadable(error)
        _tell_broken(file, report)
        return report
    if not _ends_there(file, report.bytes, comment):
        _tell_broken(file, report)
        return report
    contents = _read_contents(comment, report)
    expected = _expected_days(contents, manifest, report)
    entries = _read_entries(infos, expected, report)
    if entries is None:
        return report
    try:
        layout = Layout(entries, comment)
    except ValueError as error:
        report.add(_ARCHIVE, str(error))
        return report
    if layout.total_bytes != report.bytes:
        report.add(
            _ARCHIVE,
            f"it has {report.bytes:,} bytes, a download of these days has {layout.total_bytes:,}: "
            "it was altered or packed anew",
        )
        return report
    for index, entry in enumerate(entries):
        _check_day(_Day(file, layout, index, entry), expected.get(entry.day), contents, report, told)
    ends = layout.span(len(entries) - 1)[1] if entries else 0
    if (at := _first_difference(file, layout, ends, report.bytes)) is not None:
        report.add(_ARCHIVE, f"byte {at} {_CHANGED}, in the directory at the end")
    return report


def _raise_if_unreadable(error: Exception) -> None:
    """Raise an error of the file system again; one about a place that no file has comes of a broken zip."""
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        raise error


def _ends_there(file: BinaryIO, size: int, comment: bytes) -> bool:
    """Return whether the file ends with the end of a directory and this whole comment.

    zipfile looks for that end farther up, too, and in a file cut short may find the one of a day within it.
    """
    file.seek(max(size - _END_BYTES - len(comment), 0))
    end = file.read(_END_BYTES)
    return end[:4] == _END_MARK and int.from_bytes(end[-2:], "little") == len(comment)


def _tell_broken(file: BinaryIO, report: Report) -> None:
    file.seek(0)
    if file.read(len(_LOCAL_HEADER)) == _LOCAL_HEADER:
        message = f"it is cut short or altered: no sound directory at the end, at byte {report.bytes}"
        report.add(_ARCHIVE, f"{message}; a download can be resumed from there")
    else:
        report.add(_ARCHIVE, "it is no zip archive")


def _read_contents(comment: bytes, report: Report) -> Contents | None:
    try:
        contents = read_comment(comment)
    except ValueError as error:
        report.add(_ARCHIVE, f"its comment does not say what it holds: {error}")
        return None
    report.dataset, report.resource = contents.dataset, contents.resource
    span = (contents.last - contents.first).days + 1
    if [day.date for day in contents.days] != [contents.first + timedelta(days=index) for index in range(span)]:
        report.add(_ARCHIVE, f"its comment does not name each day from {contents.first} to {contents.last}")
    return contents


def _expected_days(
    contents: Contents | None, manifest: Sequence[ManifestDay] | None, report: Report
) -> dict[date, ManifestDay]:
    """Return what each day has to be: as the manifest says if there is one, else as the comment does."""
    said = {day.date: day for day in contents.days} if contents else {}
    if manifest is None:
        return said
    for day in manifest:
        report.notes += [f"{day.date} was made anew at {note.at}: {note.reason}" for note in day.notes]
        there = said.get(day.date)
        if there is not None and (there.events, there.bytes, there.sha256) != (day.events, day.bytes, day.sha256):
            report.add(day_name(day.date), "the manifest and the archive's comment differ about this day")
    return {day.date: day for day in manifest}


def _read_entries(
    infos: Sequence[zipfile.ZipInfo], expected: Mapping[date, ManifestDay], report: Report
) -> list[Entry] | None:
    """Return the days' files as the directory has them; None if there are others among them."""
    entries = []
    for info in infos:
        day = read_day_name(info.filename)
        if day is None:
            report.add(_ARCHIVE, f"it has a file that no download has: {info.filename[:100]}")
            continue
        entries.append(Entry(info.filename, day, info.file_size, info.CRC))
        if expected and day not in expected:
            report.add(info.filename, "this day does not belong to the download")
    report.days = len(entries)
    days = [entry.day for entry in entries]
    for missing in sorted(expected.keys() - set(days)):
        report.add(day_name(missing), "this day is missing")
    if days != sorted(set(days)):
        report.add(_ARCHIVE, "its days are not in order, or one is there twice")
    return entries if len(entries) == len(infos) else None


class _Day(io.RawIOBase):
    """A day's file where it lies in the archive, read at random through the stored blocks around it."""

    def __init__(self, file: BinaryIO, layout: Layout, index: int, entry: Entry) -> None:
        self.file = file
        self.layout = layout
        self.index = index
        self.entry = entry
        self._start = layout.data_start(index)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.entry.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning")  # as a file does, and zipfile expects
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        rest_of_block = BLOCK_BYTES - self._at % BLOCK_BYTES
        wanted = max(min(len(buffer), rest_of_block, self.entry.size - self._at), 0)
        self.file.seek(self._start + offset_in_blocks(self._at))
        data = self.file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _check_day(day: _Day, expected: ManifestDay | None, contents: Contents | None, report: Report, told: Told) -> None:
    name, size = day.entry.name, day.entry.size
    digest, crc32 = hashlib.sha256(), 0

    def take(data: bytes) -> None:
        nonlocal crc32
        digest.update(data)
        crc32 = zlib.crc32(data, crc32)
        told(len(data))

    if (at := _first_difference(day.file, day.layout, *day.layout.span(day.index), take)) is not None:
        report.add(name, f"byte {at} of the archive {_CHANGED}, around this day's data")
    if crc32 != day.entry.crc32:
        report.add(name, f"its CRC-32 is {crc32:08x}, the archive's directory says {day.entry.crc32:08x}")
    if expected is not None:
        if size != expected.bytes:
            report.add(name, f"it has {size:,} bytes, {expected.bytes:,} are named")
        if digest.hexdigest() != expected.sha256:
            report.add(name, f"its SHA-256 is {digest.hexdigest()}, {expected.sha256} is named")
    counts = _check_hours(day, contents, report, told)
    if counts is None:
        return
    events = sum(hour.events for hour in counts.values())
    report.events += events
    if expected is not None and events != expected.events:
        report.add(name, f"it has {events:,} events, {expected.events:,} are named")
    if expected is not None and expected.files is not None:
        _compare_files(name, counts, expected.files, report)


def _first_difference(
    file: BinaryIO, layout: Layout, start: int, stop: int, take: Callable[[bytes], None] | None = None
) -> int | None:
    """Read a range of the archive against the layout; return where what is around the days' data first differs.

    Args:
        file: the archive.
        layout: what it should be.
        start: where to begin.
        stop: where to end (exclusive).
        take: takes the days' data.
    """
    file.seek(start)
    at, different = start, None
    for piece in layout.pieces(start, stop):
        length = piece.stop - piece.start if isinstance(piece, Slice) else len(piece)
        data = file.read(length)
        if isinstance(piece, Slice):
            if take is not None:
                take(data)
        elif data != piece and different is None:
            different = at + _agreeing(data, piece)
        at += length
    return different


def _agreeing(data: bytes, wanted: bytes) -> int:
    """Return at how many bytes from the beginning two strings agree."""
    pairs = enumerate(zip(data, wanted, strict=False))
    return next((index for index, (here, there) in pairs if here != there), min(len(data), len(wanted)))


def _check_hours(day: _Day, contents: Contents | None, report: Report, told: Told) -> dict[str, HourCounts] | None:
    """Read a day's hours; return what each file holds, by name, or None if they cannot be found."""
    counts: dict[str, HourCounts] = {}
    last_hour = -1
    try:
        with zipfile.ZipFile(io.BufferedReader(day, _BUFFER_BYTES)) as inner:
            for info in inner.infolist():
                place = f"{day.entry.name}: {info.filename[:100]}"
                name = read_hour_name(info.filename)
                wrong = _wrong_name(name, day.entry.day, last_hour, contents)
                if name is None or wrong:
                    report.add(place, wrong)
                    continue
                last_hour = name.hour
                try:
                    with inner.open(info) as file:
                        counts[info.filename] = judge_hour(file, name, place, _as_came(contents), report, told)
                except (*_BROKEN, OSError) as error:
                    _raise_if_unreadable(error)
                    report.add(place, f"it cannot be read: {error}")
    except (*_BROKEN, OSError) as error:
        _raise_if_unreadable(error)
        report.add(day.entry.name, f"it is no sound zip archive: {error}")
        return None
    return counts


def _wrong_name(name: HourName | None, day: date, last_hour: int, contents: Contents | None) -> str:
    """Return what is wrong with the name of an hour's file; "" if nothing is."""
    if name is None:
        return "no file of a day is called so"
    if name.day != day:
        return "it belongs to another day"
    if name.hour <= last_hour:
        return "the hours are not in order, or one is there twice"
    if contents is not None and name.format != contents.format:
        return f"the download is {contents.format}, this file is {name.format}"
    return ""


def _as_came(contents: Contents | None) -> bool:
    """Return whether the lines of JSON are events as they came."""
    return contents is None or not contents.columns


def _compare_files(day: str, counts: Mapping[str, HourCounts], expected: Sequence[FileFacts], report: Report) -> None:
    named = {file.name: file for file in expected}
    for name in sorted(named.keys() - counts.keys()):
        report.add(f"{day}: {name}", "the manifest names this file, the archive has none that can be read")
    for name, found in counts.items():
        file = named.get(name)
        if file is None:
            report.add(f"{day}: {name}", "the manifest does not name this file")
        elif (file.events, file.bytes, file.sha256) != found:
            report.add(
                f"{day}: {name}",
                f"it has {found.events:,} events, {found.bytes:,} bytes and the SHA-256 {found.sha256}; "
                f"the manifest names {file.events:,}, {file.bytes:,} and {file.sha256}",
            )
