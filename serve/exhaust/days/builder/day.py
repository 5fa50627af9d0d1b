"""A day's file: the plan, the hours, the zip around them, and the facts of all."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path
from stat import S_IFREG
from typing import IO, Any, Protocol

from stream_zip import NO_COMPRESSION_32, NO_COMPRESSION_64, Method, stream_zip

from midstream.exhaust.manifest import DayFacts, FileFacts
from midstream.exhaust.names import hour_name
from midstream.exhaust.queries import Second, columns_of, lines_of, seconds_of
from serve.exhaust.days.builder.ahead import ahead
from serve.exhaust.days.builder.hours import HourFile, write_csv, write_lines, write_parquet
from serve.exhaust.days.builder.job import Job
from serve.exhaust.days.builder.lines import LineStream, counted
from serve.exhaust.days.builder.plan import Hour, Slice, plan_hours, plan_slices

_AHEAD = 8
"""Chunks read ahead, each up to 256 KiB."""
_ZIP32_BYTES = 0xFFFFFFFE
"""Larger files need the 64-bit form, which some older programs cannot read."""
_MODE = S_IFREG | 0o644

Progress = Callable[[int, int], None]
"""Told how many events are built, and of how many; may raise to give up."""


class Source(Protocol):
    """What a day is read from: ClickHouse."""

    def rows(self, sql: str, parameters: dict[str, Any]) -> Iterable[tuple[Any, ...]]:
        """Return a query's rows."""

    def stream(self, sql: str, parameters: dict[str, Any], form: str) -> Iterator[bytes]:
        """Yield a query's answer in a format of ClickHouse."""


@dataclass(slots=True)
class _Written:
    """The zip while it is written."""

    file: IO[bytes]
    size: int = 0
    crc32: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.size += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        self.sha256.update(data)


def build_day(job: Job, source: Source, file: IO[bytes], scratch: Path, progress: Progress) -> DayFacts:
    """Write a day's zip to ``file``, durably; return its facts.

    Args:
        job: the day.
        source: where its events are.
        file: unbuffered, so that who follows it sees all that was written.
        scratch: folder for an hour's file while it is written.
        progress: see :data:`Progress`.

    Raises:
        BuildError: what ClickHouse gave is not what it had counted.
        ClickHouseError: it does not answer, or broke off.
    """
    seconds = [Second(*row) for row in source.rows(*seconds_of(job.dataset, job.resource, job.variant, job.day))]
    hours, slices = plan_hours(seconds), plan_slices(seconds)
    files: list[FileFacts] = []
    written = _Written(file)
    midnight = datetime.combine(job.day, time(), UTC)

    def members() -> Iterator[tuple[str, datetime, int, Method, Iterable[bytes]]]:
        total, done = sum(hour.events for hour in hours), 0
        progress(0, total)
        for hour, part in _hour_files(job, source, scratch, hours, slices):
            facts = FileFacts(
                hour_name(job.day, hour.hour, hour.first_ms, job.variant.format), hour.events, part.bytes, part.sha256
            )
            files.append(facts)
            fits = max(part.bytes, written.size) <= _ZIP32_BYTES
            method = NO_COMPRESSION_32 if fits else NO_COMPRESSION_64
            yield facts.name, midnight, _MODE, method(part.bytes, part.crc32), part.chunks()
            done += hour.events
            progress(done, total)

    for chunk in stream_zip(members(), extended_timestamps=False):
        written.write(chunk)
    os.fsync(file.fileno())
    return DayFacts(
        job.day,
        sum(one.events for one in files),
        written.size,
        written.sha256.hexdigest(),
        written.crc32,
        tuple(files),
        job.notes,
    )


def _hour_files(
    job: Job, source: Source, scratch: Path, hours: list[Hour], slices: list[Slice]
) -> Iterator[tuple[Hour, HourFile]]:
    if job.variant.format == "jsonl":
        with ahead(_lines(job, source, slices), _AHEAD) as chunks:
            lines = LineStream(chunks)
            for hour in hours:
                file = HourFile(scratch)
                write_lines(file, lines.take(hour.events))
                yield hour, file
            lines.finish()
        return
    from serve.exhaust.days.builder.tables import RowStream  # with Arrow, which lines go without

    write = write_csv if job.variant.format == "csv" else write_parquet
    with ahead(_batches(job, source, slices), _AHEAD) as batches:
        rows = RowStream(batches)
        for hour in hours:
            file = HourFile(scratch)
            write(file, rows.schema(), rows.take(hour.events))
            yield hour, file
        rows.finish()


def _lines(job: Job, source: Source, slices: list[Slice]) -> Iterator[Iterator[bytes]]:
    for part in slices:
        query = lines_of(job.dataset, job.resource, job.variant, part.begin_ms, part.end_ms)
        yield counted(source.stream(*query), part.events, f"The part from {part.begin_ms} ms")


def _batches(job: Job, source: Source, slices: list[Slice]) -> Iterator[Iterator[Any]]:
    from serve.exhaust.days.builder.tables import read_batches

    for part in slices:
        query = columns_of(job.dataset, job.resource, job.variant, part.begin_ms, part.end_ms)
        yield read_batches(source.stream(*query), part.events)
