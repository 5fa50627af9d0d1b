"""Reads an hour's file to its end and judges it: JSON lines, CSV or Parquet. Memory is flat, whatever its size."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import IO, Annotated, Any, Final, NamedTuple

import msgspec

from midstream.exhaust.findings import Report
from midstream.exhaust.names import HourName
from midstream.lines import GzipError, Inflater, LineSplitter

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Events are far smaller; a longer line is a finding and is not held."""

_READ_BYTES: Final = 256 * 1024
_PARQUET_ROWS: Final = 10_000
_MINUTES = re.compile(r"[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z")  # what follows the hour


class HourCounts(NamedTuple):
    """What an hour's file was found to hold: events, its size in bytes, its SHA-256."""

    events: int
    bytes: int
    sha256: str


class _Receipt(msgspec.Struct):
    received_at: str
    batch_id: str
    event_index: Annotated[int, msgspec.Meta(ge=0)]


class _Line(msgspec.Struct):
    receipt: _Receipt


class _AnyObject(msgspec.Struct):
    pass


def judge_hour(
    file: IO[bytes], name: HourName, place: str, as_came: bool, report: Report, told: Callable[[int], None]
) -> HourCounts:
    """Read an hour's file and add what is wrong with it to the report.

    Args:
        file: to be read from its beginning; for Parquet it must be seekable.
        name: what its name says.
        place: what to call it.
        as_came: whether the lines of JSON are events as they came, with their receipts, and not chosen columns.
        report: takes the findings, each kind of fault once a file.
        told: takes the number of bytes read since it was last called.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: it is not what the zip around it says.
    """
    source = _Source(file, told)
    faults = _Faults()
    events = 0
    try:
        if name.format == "jsonl":
            events = _count_json(source, _Order(name, faults) if as_came else None, faults)
        elif name.format == "csv":
            events = _count_csv(source, faults)
    except GzipError as error:
        report.add(place, str(error))
    source.drain()
    if name.format == "parquet":
        events = _count_parquet(file, place, report)
    for message in faults.messages():
        report.add(place, message)
    return HourCounts(events, source.bytes, source.sha256())


class _Source:
    """Hashes and counts what is read of a file."""

    def __init__(self, file: IO[bytes], told: Callable[[int], None]) -> None:
        self._file = file
        self._told = told
        self._digest = hashlib.sha256()
        self.bytes = 0

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(_READ_BYTES):
            self._digest.update(chunk)
            self.bytes += len(chunk)
            self._told(len(chunk))
            yield chunk

    def drain(self) -> None:
        """Read what is left."""
        for _ in self.chunks():
            pass

    def lines(self, faults: _Faults) -> Iterator[bytes | None]:
        """Yield the lines of a gzip file; one that is too long is None.

        Raises:
            GzipError: the stream is corrupt or cut short.
        """
        inflater, splitter = Inflater(), LineSplitter(MAX_LINE_BYTES)
        count = 0
        for chunk in self.chunks():
            for piece in inflater.feed(chunk):
                lines = splitter.feed(piece)
                count += len(lines)
                yield from lines
        inflater.finish()
        if rest := splitter.finish():
            faults.add("the last line has no end", count + 1)
            yield from rest

    def sha256(self) -> str:
        return self._digest.hexdigest()


class _Faults:
    """Of the lines of a file: each kind once, with the first line and how many there are."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int]] = {}

    def add(self, what: str, line: int) -> None:
        first, count = self._found.get(what, (line, 0))
        self._found[what] = first, count + 1

    def messages(self) -> Iterator[str]:
        for what, (first, count) in self._found.items():
            yield f"line {first}: {what}" + (f"; {count - 1:,} more such lines" if count > 1 else "")


class _Order:
    """Sees that receipts are of the hour and rise strictly, so that none is there twice."""

    def __init__(self, name: HourName, faults: _Faults) -> None:
        self._start = f"{name.day}T{name.hour:02}:"
        self._epoch_ms = name.epoch_ms
        self._faults = faults
        self._last: tuple[str, str, int] = ("", "", -1)

    def take(self, receipt: _Receipt, line: int) -> None:
        at = receipt.received_at
        if not at.startswith(self._start) or _MINUTES.fullmatch(at, len(self._start)) is None:
            self._faults.add("the event was not received in this hour", line)
            return
        here = (at, receipt.batch_id, receipt.event_index)
        if here == self._last:
            self._faults.add("the event is there twice", line)
        elif here < self._last:
            self._faults.add("the event is not in the order of receipt", line)
        elif not self._last[0] and _epoch_ms(at) != self._epoch_ms:
            self._faults.add(f"the first event was received at {_epoch_ms(at)}, the file's name has another time", line)
        self._last = max(here, self._last)


def _epoch_ms(at: str) -> int:
    """Return a receipt's time in milliseconds since 1970."""
    moment = datetime.fromisoformat(at).astimezone(UTC)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def _count_json(source: _Source, order: _Order | None, faults: _Faults) -> int:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Line if order else _AnyObject)
    number = 0
    for number, line in enumerate(source.lines(faults), 1):  # the number of the last is the result
        if line is None:
            faults.add(f"the line has more than {MAX_LINE_BYTES} bytes", number)
            continue
        try:
            found = decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            found = _decode_slowly(line, order is not None, faults, number)
        if order is not None and found is not None:
            order.take(found.receipt, number)
    return number


def _decode_slowly(line: bytes, with_receipt: bool, faults: _Faults, number: int) -> _Line | None:
    """Read a line as the standard library does, which takes more: lone surrogates, and a name that is there twice."""
    try:
        found = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        faults.add("the line is no JSON", number)
        return None
    if not isinstance(found, dict):
        faults.add("the line is no JSON object", number)
        return None
    if not with_receipt:
        return None
    try:
        return msgspec.convert({"receipt": found.get("receipt")}, _Line)
    except msgspec.ValidationError:
        faults.add("the event has no receipt", number)
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _count_csv(source: _Source, faults: _Faults) -> int:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(_text_lines(source, faults), strict=True)
    rows = -1
    titles: list[str] = []
    try:
        for cells in reader:
            rows += 1
            if not rows:
                titles = cells
            elif len(cells) != len(titles):
                faults.add(f"the row has not the {len(titles)} cells of the header row", reader.line_num)
    except csv.Error as error:
        faults.add(f"the CSV cannot be read on: {error}", reader.line_num)
    if rows < 0:
        faults.add("there is no header row", 1)
    return max(rows, 0)


def _text_lines(source: _Source, faults: _Faults) -> Iterator[str]:
    """Yield a CSV's lines with their ends. Rows are counted, so what is not UTF-8 does no harm."""
    for number, line in enumerate(source.lines(faults), 1):
        if line is None:
            faults.add(f"the line has more than {MAX_LINE_BYTES} bytes", number)
        else:
            yield line.decode("utf-8", "surrogateescape") + "\n"


def _count_parquet(file: IO[bytes], place: str, report: Report) -> int:
    """Count the rows by reading all of them, some at a time."""
    import pyarrow
    import pyarrow.parquet

    file.seek(0)
    rows = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as found:
            for batch in found.iter_batches(_PARQUET_ROWS):
                rows += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        report.add(place, f"the Parquet file cannot be read: {' '.join(str(error).split())[:200]}")
    return rows
