"""Reads files of rows: JSON lines or CSV with a header row, gzipped or not, in bounded memory."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from midstream.lines import GZIP_MARK, LineSplitter

_READ_BYTES = 256 * 1024
_CSV_ROWS_AT_ONCE = 1_000


class FileError(Exception):
    """The file cannot be read on; the message says why."""


class FileCutError(FileError):
    """The file ends half way."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was not taken. ``line`` counts from 1; of a CSV row over several lines it is the last."""

    line: int
    code: str
    message: str


class JsonLine(NamedTuple):
    """A line that is not blank; ``line`` counts from 1."""

    line: int
    text: bytes


class CsvRow(NamedTuple):
    """The cells of a row that are not empty, by column. Bytes that are not UTF-8 are lone surrogates in them."""

    line: int
    cells: dict[str, str]


Row = JsonLine | CsvRow | Refusal


def read_rows(
    file: BinaryIO, columns: Sequence[str], max_line_bytes: int, max_cell_chars: int
) -> Iterator[tuple[list[Row], int]]:
    """Yield the rows and refusals of a file, some at a time, with the number of its bytes read so far.

    Args:
        file: what to read.
        columns: those that a CSV has to have.
        max_line_bytes: a longer line of JSON is refused.
        max_cell_chars: a CSV with a longer cell cannot be read on.

    Raises:
        FileError: it is corrupt, or no CSV with these columns.
    """
    raw = _Counted(file)
    buffered = io.BufferedReader(raw, _READ_BYTES)
    plain: io.BufferedIOBase = buffered
    try:
        if buffered.peek(2)[:2] == GZIP_MARK:
            plain = io.BufferedReader(gzip.GzipFile(fileobj=buffered), _READ_BYTES)
        head = plain.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()  # type: ignore[attr-defined]
        is_json = head[:1] in (b"{", b"")
        found = _json_lines(plain, max_line_bytes) if is_json else _csv_rows(plain, columns, max_cell_chars)
        for rows in found:
            yield rows, raw.count
    except EOFError as error:
        raise FileCutError(f"the gzip file is corrupt: {error}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
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


def _json_lines(file: io.BufferedIOBase, max_line_bytes: int) -> Iterator[list[Row]]:
    splitter = LineSplitter(max_line_bytes)
    number = 0
    while True:
        data = file.read1(_READ_BYTES)
        rows: list[Row] = []
        for line in splitter.feed(data) if data else splitter.finish():
            number += 1
            if line is None:
                rows.append(Refusal(number, "TOO_LARGE", "the line is longer than a row may be"))
            elif line and not line.isspace():
                rows.append(JsonLine(number, line))
        yield rows
        if not data:
            return


def _csv_rows(file: io.BufferedIOBase, needed: Sequence[str], max_cell_chars: int) -> Iterator[list[Row]]:
    csv.field_size_limit(max_cell_chars)
    # Bytes that are not UTF-8 become lone surrogates here and refuse their own row only.
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")  # type: ignore[type-var]
    reader = csv.reader(text, strict=True)
    columns = next(reader, [])
    if not set(needed) <= set(columns) or len(set(columns)) != len(columns) or "" in columns:
        named = " and ".join(f"`{name}`" for name in needed)
        raise FileError(
            "the file is neither JSON lines nor CSV with a header row of different names, "
            f"{'one' if len(needed) == 1 else 'some'} of them {named}"
        )
    rows: list[Row] = []
    for cells in reader:
        if not cells:
            continue
        if len(cells) == len(columns):
            named_cells = {column: cell for column, cell in zip(columns, cells, strict=True) if cell}
            rows.append(CsvRow(reader.line_num, named_cells))
        else:
            message = f"{len(cells)} cells, the header has {len(columns)}"
            rows.append(Refusal(reader.line_num, "INVALID_ROW", message))
        if len(rows) == _CSV_ROWS_AT_ONCE:
            yield rows
            rows = []
    yield rows
