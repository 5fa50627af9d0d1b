"""Reads dimension rows from files: JSON lines or CSV, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from midstream.dimensions import (
    Dimension,
    DimensionError,
    DimensionType,
    VersionClock,
    make_dimension,
    max_line_bytes,
    parse_row,
)
from midstream.lines import GZIP_MARK, LineSplitter

_READ_BYTES = 256 * 1024
_CSV_ROWS_AT_ONCE = 1_000


class FileError(Exception):
    """The file cannot be read on; the message says why."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was not taken. ``line`` counts from 1; of a CSV row over several lines it is the last."""

    line: int
    code: str
    message: str


Item = Dimension | Refusal


def read_items(
    type_: DimensionType, file: BinaryIO, clock: VersionClock, max_attributes_bytes: int
) -> Iterator[tuple[list[Item], int]]:
    """Yield the rows and refusals of a file, some at a time, with the number of its bytes read so far.

    Raises:
        FileError: it is corrupt, or no CSV with a column ``id``.
    """
    raw = _Counted(file)
    buffered = io.BufferedReader(raw, _READ_BYTES)
    plain: io.BufferedIOBase = buffered
    if buffered.peek(2)[:2] == GZIP_MARK:
        plain = io.BufferedReader(gzip.GzipFile(fileobj=buffered), _READ_BYTES)
    try:
        head = plain.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()  # type: ignore[attr-defined]
        rows = _json_rows if head[:1] in (b"{", b"") else _csv_rows
        for items in rows(type_, plain, clock, max_attributes_bytes):
            yield items, raw.count
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileError(f"the gzip file is corrupt: {error}") from None
    except csv.Error as error:
        raise FileError(f"the CSV cannot be read on: {error}") from None
    except OSError as error:
        raise FileError(f"the file cannot be read: {error.strerror or error}") from None


class _Counted(io.RawIOBase):
    """Counts the bytes that are read of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def _json_rows(
    type_: DimensionType, file: io.BufferedIOBase, clock: VersionClock, max_attributes_bytes: int
) -> Iterator[list[Item]]:
    splitter = LineSplitter(max_line_bytes(max_attributes_bytes))
    number = 0
    while True:
        data = file.read1(_READ_BYTES)
        items: list[Item] = []
        for line in splitter.feed(data) if data else splitter.finish():
            number += 1
            if line is None:
                items.append(Refusal(number, "TOO_LARGE", "the line is longer than a row may be"))
            elif line and not line.isspace():
                try:
                    items.append(parse_row(type_, line, clock, max_attributes_bytes))
                except DimensionError as error:
                    items.append(Refusal(number, error.code, str(error)))
        yield items
        if not data:
            return


def _csv_rows(
    type_: DimensionType, file: io.BufferedIOBase, clock: VersionClock, max_attributes_bytes: int
) -> Iterator[list[Item]]:
    csv.field_size_limit(max_attributes_bytes)
    # Bytes that are not UTF-8 become lone surrogates here and refuse their own row only.
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")  # type: ignore[type-var]
    reader = csv.reader(text, strict=True)
    columns = next(reader, [])
    if "id" not in columns or len(set(columns)) != len(columns) or "" in columns:
        raise FileError("the file is neither JSON lines nor CSV with a header row of different names, one of them `id`")
    items: list[Item] = []
    for cells in reader:
        if not cells:
            continue
        try:
            items.append(_csv_row(type_, columns, cells, clock, max_attributes_bytes))
        except DimensionError as error:
            items.append(Refusal(reader.line_num, error.code, str(error)))
        if len(items) == _CSV_ROWS_AT_ONCE:
            yield items
            items = []
    yield items


def _csv_row(
    type_: DimensionType, columns: list[str], cells: list[str], clock: VersionClock, max_attributes_bytes: int
) -> Dimension:
    if len(cells) != len(columns):
        raise DimensionError("INVALID_ROW", f"{len(cells)} cells, the header has {len(columns)}")
    values = {column: cell for column, cell in zip(columns, cells, strict=True) if cell}
    id_ = values.pop("id", "")
    version_text = values.pop("version", "")
    if not version_text:
        version = clock.next(id_)
    elif version_text.isascii() and version_text.isdecimal() and len(version_text) <= 19:
        version = int(version_text)
    else:
        raise DimensionError("INVALID_VERSION", "version is an integer from 0 to 2^63-1")
    try:
        attributes = msgspec.json.encode(values)
    except UnicodeEncodeError:
        raise DimensionError("INVALID_UTF8", "the row is not UTF-8") from None
    return make_dimension(type_, id_, attributes, version, max_attributes_bytes)
