"""What a download holds, in numbers and hashes: a day's facts, the manifest, and the comment of an archive. Pure.

The facts of a day are kept beside its file as JSON (its sidecar). A manifest lists those of several days. An archive
carries a short form of it as its comment, so that it can be verified with nothing else at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

from midstream.exhaust.names import FORMATS, Format

MAX_COMMENT_BYTES = 65_535
"""A zip archive's comment can be no longer (APPNOTE 4.4.12)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_CRC32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class FileFacts:
    """An hour's file as it lies in its day's zip: gzip or Parquet. ``sha256`` is of these ``bytes`` bytes."""

    name: str
    events: int
    bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as the manifest has it."""
        return {"name": self.name, "events": self.events, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Note:
    """Why a closed day was made anew; ``at`` is ISO 8601."""

    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class DayFacts:
    """A day's file, a zip of ``bytes`` bytes with one file an hour in which something was received."""

    date: date
    events: int
    bytes: int
    sha256: str
    crc32: int
    files: tuple[FileFacts, ...] = ()
    notes: tuple[Note, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as its sidecar has it."""
        return {
            **_manifest_day(self),
            "crc32": self.crc32,
            "notes": [{"at": note.at, "reason": note.reason} for note in self.notes],
        }


@dataclass(frozen=True, slots=True)
class ManifestDay:
    """A day as a manifest or an archive's comment tells of it; ``files`` is None where the hours are not listed."""

    date: date
    events: int
    bytes: int
    sha256: str
    files: tuple[FileFacts, ...] | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive says of itself in its comment. ``columns`` is empty if the events are there as they came."""

    dataset: str
    resource: str
    first: date
    last: date
    format: Format
    days: tuple[ManifestDay, ...]
    columns: tuple[str, ...] = ()

    def as_comment(self) -> bytes:
        """Return the archive's comment.

        Raises:
            ValueError: it is longer than :data:`MAX_COMMENT_BYTES`.
        """
        days = [
            {"date": str(day.date), "events": day.events, "bytes": day.bytes, "sha256": day.sha256} for day in self.days
        ]
        said = {
            "dataset": self.dataset,
            "resource": self.resource,
            "from": str(self.first),
            "to": str(self.last),
            "format": self.format,
            **({"columns": self.columns} if self.columns else {}),
            "days": days,
        }
        comment = json.dumps(said, separators=(",", ":")).encode()
        if len(comment) > MAX_COMMENT_BYTES:
            raise ValueError(f"the archive's comment has {len(comment)} bytes, {MAX_COMMENT_BYTES} is the most")
        return comment


def manifest(days: Iterable[DayFacts]) -> dict[str, Any]:
    """Return the manifest of days; ``notes`` are only where there are any."""
    listed = []
    for day in days:
        entry = _manifest_day(day)
        if day.notes:
            entry["notes"] = day.as_dict()["notes"]
        listed.append(entry)
    return {"days": listed}


def short_days(days: Iterable[DayFacts]) -> tuple[ManifestDay, ...]:
    """Return days as an archive's comment tells of them."""
    return tuple(ManifestDay(day.date, day.events, day.bytes, day.sha256) for day in days)


def read_sidecar(text: bytes | str) -> DayFacts:
    """Read a day's sidecar.

    Raises:
        ValueError: it is broken; the message says where.
    """
    said = _object(_parse(text), "the sidecar")
    day = _read_day(said, "the sidecar", files_needed=True, notes_needed=True)
    crc32 = _count(said, "crc32", "the sidecar")
    if crc32 > _MAX_CRC32:
        raise ValueError("the sidecar: crc32 is no 32-bit number")
    return DayFacts(day.date, day.events, day.bytes, day.sha256, crc32, day.files or (), day.notes)


def read_manifest(text: bytes | str) -> tuple[ManifestDay, ...]:
    """Read a manifest as it was downloaded.

    Raises:
        ValueError: it is none; the message says where it is wrong.
    """
    said = _object(_parse(text), "the manifest")
    return _read_days(said, "the manifest", files_needed=True)


def read_comment(comment: bytes) -> Contents:
    """Read an archive's comment.

    Raises:
        ValueError: it is not one of ours; the message says where it is wrong.
    """
    where = "the comment"
    said = _object(_parse(comment), where)
    kind = _text(said, "format", where)
    if kind not in FORMATS:
        raise ValueError(f"{where}: format is none of {', '.join(FORMATS)}")
    columns = _list(said, "columns", where) if "columns" in said else []
    if not all(isinstance(column, str) for column in columns):
        raise ValueError(f"{where}: columns are not names")
    return Contents(
        _text(said, "dataset", where),
        _text(said, "resource", where),
        _date(said, "from", where),
        _date(said, "to", where),
        kind,
        _read_days(said, where, files_needed=False),
        tuple(columns),
    )


def _manifest_day(day: DayFacts) -> dict[str, Any]:
    return {
        "date": str(day.date),
        "events": day.events,
        "bytes": day.bytes,
        "sha256": day.sha256,
        "files": [file.as_dict() for file in day.files],
    }


def _read_days(said: Mapping[str, Any], where: str, *, files_needed: bool) -> tuple[ManifestDay, ...]:
    days = tuple(
        _read_day(_object(entry, f"{where}: day {index}"), f"{where}: day {index}", files_needed=files_needed)
        for index, entry in enumerate(_list(said, "days", where))
    )
    if any(day.date >= after.date for day, after in pairwise(days)):
        raise ValueError(f"{where}: the days are not in order")
    return days


def _read_day(said: Mapping[str, Any], where: str, *, files_needed: bool, notes_needed: bool = False) -> ManifestDay:
    files = _read_files(_list(said, "files", where), where) if files_needed else None
    notes = _list(said, "notes", where) if notes_needed or "notes" in said else []
    day = ManifestDay(
        _date(said, "date", where),
        _count(said, "events", where),
        _count(said, "bytes", where),
        _sha256(said, where),
        files,
        tuple(_read_note(_object(note, f"{where}: a note"), f"{where}: a note") for note in notes),
    )
    if files is not None and sum(file.events for file in files) != day.events:
        raise ValueError(f"{where}: the files' events do not add up to the day's")
    return day


def _read_files(entries: Sequence[Any], where: str) -> tuple[FileFacts, ...]:
    files = []
    for index, entry in enumerate(entries):
        place = f"{where}: file {index}"
        said = _object(entry, place)
        files.append(
            FileFacts(
                _text(said, "name", place),
                _count(said, "events", place),
                _count(said, "bytes", place),
                _sha256(said, place),
            )
        )
    return tuple(files)


def _read_note(said: Mapping[str, Any], where: str) -> Note:
    return Note(_text(said, "at", where), _text(said, "reason", where))


def _parse(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no JSON object")
    return value


def _list(said: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = said.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{where}: {name} is no list")
    return value


def _text(said: Mapping[str, Any], name: str, where: str) -> Any:
    value = said.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name} is no text")
    return value


def _count(said: Mapping[str, Any], name: str, where: str) -> int:
    value = said.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{where}: {name} is no number of 0 or more")
    return value


def _date(said: Mapping[str, Any], name: str, where: str) -> date:
    text = _text(said, name, where)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{where}: {name} is no date") from None
    if str(day) != text:  # fromisoformat takes other forms of ISO 8601, too
        raise ValueError(f"{where}: {name} is no date YYYY-MM-DD")
    return day


def _sha256(said: Mapping[str, Any], where: str) -> str:
    value: str = _text(said, "sha256", where)
    if _SHA256.fullmatch(value) is None:
        raise ValueError(f"{where}: sha256 is not 64 hex digits in lower case")
    return value
