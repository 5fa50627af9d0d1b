"""Downloads of datasets, small ones: made with zipfile and gzip, and wrapped as the product wraps them."""

import csv
import gzip
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from midstream.exhaust.manifest import Contents, DayFacts, FileFacts, short_days
from midstream.exhaust.names import Format, day_name, hour_name
from midstream.exhaust.outer import Entry, Framer, descriptor, header, trailer

RESOURCE = "5b1f9c3e8d2a4f60718293a4b5c6d7e8f9012345"


def epoch_ms(day: date, hour: int, ms: int = 0) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp()) * 1000 + ms


def event_line(at_ms: int, batch_id: str, index: int, **more: Any) -> bytes:
    """An event as a dataset has it: as it came, with its receipt as the last member."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms % 1000:03}Z"
    receipt = {"received_at": at, "batch_id": batch_id, "event_index": index}
    return json.dumps({"eid": "LOG", "mid": f"LOG:{batch_id}:{index}", **more, "receipt": receipt}).encode()


def hour_lines(day: date, hour: int, count: int) -> list[bytes]:
    """Events of an hour in their order, three a batch, one batch a second."""
    return [
        event_line(epoch_ms(day, hour, index // 3 * 1000 + 7), f"b{index // 3:04}", index % 3) for index in range(count)
    ]


def text_of(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@dataclass(frozen=True)
class Hour:
    """An hour's file with its facts."""

    data: bytes
    facts: FileFacts


def make_hour(name: str, data: bytes, events: int) -> Hour:
    return Hour(data, FileFacts(name, events, len(data), hashlib.sha256(data).hexdigest()))


def json_hour(day: date, hour: int, lines: Sequence[bytes] | int, name: str = "", events: int | None = None) -> Hour:
    """JSON lines, as given or so many."""
    if isinstance(lines, int):
        lines = hour_lines(day, hour, lines)
    name = name or hour_name(day, hour, epoch_ms(day, hour, 7))
    return make_hour(name, gzip.compress(text_of(lines), mtime=0), len(lines) if events is None else events)


def csv_hour(day: date, hour: int, rows: Sequence[Sequence[str]], events: int | None = None) -> Hour:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["eid", "text"], *rows])
    name = hour_name(day, hour, epoch_ms(day, hour, 7), "csv")
    data = gzip.compress(out.getvalue().encode(), mtime=0)
    return make_hour(name, data, len(rows) if events is None else events)


def parquet_hour(day: date, hour: int, count: int, events: int | None = None) -> Hour:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"eid": ["LOG"] * count}), out)
    name = hour_name(day, hour, epoch_ms(day, hour, 7), "parquet")
    return make_hour(name, out.getvalue(), count if events is None else events)


@dataclass(frozen=True)
class Day:
    """A day's file with its facts."""

    data: bytes
    facts: DayFacts


def make_day(day: date, hours: Sequence[Hour]) -> Day:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as inner:
        for hour in hours:
            inner.writestr(zipfile.ZipInfo(hour.facts.name, (day.year, day.month, day.day, 0, 0, 0)), hour.data)
    data = out.getvalue()
    files = tuple(hour.facts for hour in hours)
    events = sum(file.events for file in files)
    return Day(data, DayFacts(day, events, len(data), hashlib.sha256(data).hexdigest(), zlib.crc32(data), files))


def make_contents(days: Sequence[DayFacts], kind: Format = "jsonl", columns: tuple[str, ...] = ()) -> Contents:
    return Contents("D001", RESOURCE, days[0].date, days[-1].date, kind, short_days(days), columns)


def make_archive(days: Sequence[Day], comment: bytes | None = None) -> bytes:
    """The download of days; its comment tells the truth unless another is given."""
    if comment is None:
        comment = make_contents([day.facts for day in days]).as_comment()
    sent = bytearray()
    entries = []
    for day in days:
        entry = Entry(day_name(day.facts.date), day.facts.date, len(day.data), zlib.crc32(day.data))
        framer = Framer()
        sent += header(entry.name, entry.day) + framer.feed(day.data) + framer.finish()
        sent += descriptor(entry.crc32, entry.size)
        entries.append(entry)
    return bytes(sent + trailer(entries, comment))
