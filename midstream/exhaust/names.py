"""The names of a download and of the files in it. Pure: a name follows from the data, never from chance or a clock."""

from __future__ import annotations

import re
from datetime import date
from typing import Literal, NamedTuple, get_args

Format = Literal["jsonl", "csv", "parquet"]
"""What the hour files of a dataset are: JSON lines or CSV, both gzipped, or Parquet."""

FORMATS: tuple[Format, ...] = get_args(Format)

_STEMS: dict[Format, tuple[str, str]] = {"jsonl": (".log", "gz"), "csv": (".csv", "gz"), "parquet": ("", "parquet")}
_FORMATS = {ends: name for name, ends in _STEMS.items()}

_DATE = r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
_OUTER = re.compile(rf"dataset-{_DATE}-to-{_DATE}-(0|[1-9][0-9]*)\.zip")
_DAY = re.compile(rf"aggregated-{_DATE}\.gz")
_HOUR = re.compile(rf"data-exhaust-([01][0-9]|2[0-3])(\.[a-z]+|)-{_DATE}-(0|[1-9][0-9]{{0,15}})\.([a-z]+)")


class OuterName(NamedTuple):
    """What the name of a download says."""

    first: date
    last: date
    number: int


class HourName(NamedTuple):
    """What the name of an hour's file says; ``epoch_ms`` is the receipt of its first event."""

    day: date
    hour: int
    epoch_ms: int
    format: Format


def outer_name(first: date, last: date, number: int) -> str:
    """Return the name of a download of the days ``first`` to ``last``; ``number`` is derived from what they hold."""
    return f"dataset-{first}-to-{last}-{number}.zip"


def day_name(day: date) -> str:
    """Return the name of a day's file in a download. It is a zip, whatever it is called: older clients want it so."""
    return f"aggregated-{day}.gz"


def hour_name(day: date, hour: int, epoch_ms: int, format: Format = "jsonl") -> str:  # the field's word
    """Return the name of an hour's file in a day's.

    Args:
        day: of receipt, UTC.
        hour: of receipt, 0 to 23.
        epoch_ms: the receipt of the file's first event, in milliseconds since 1970.
        format: what the file is.
    """
    stem, suffix = _STEMS[format]
    return f"data-exhaust-{hour:02}{stem}-{day}-{epoch_ms}.{suffix}"


def read_outer_name(name: str) -> OuterName | None:
    """Read the name of a download; None if it is not one."""
    found = _OUTER.fullmatch(name)
    first, last = (_read_date(found[1]), _read_date(found[2])) if found else (None, None)
    if found is None or first is None or last is None or last < first:
        return None
    return OuterName(first, last, int(found[3]))


def read_day_name(name: str) -> date | None:
    """Read the name of a day's file; None if it is not one."""
    found = _DAY.fullmatch(name)
    return _read_date(found[1]) if found else None


def read_hour_name(name: str) -> HourName | None:
    """Read the name of an hour's file; None if it is not one."""
    found = _HOUR.fullmatch(name)
    if found is None:
        return None
    day, kind = _read_date(found[3]), _FORMATS.get((found[2], found[5]))
    if day is None or kind is None:
        return None
    return HourName(day, int(found[1]), int(found[4]), kind)


def _read_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
