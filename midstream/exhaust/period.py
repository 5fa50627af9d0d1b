"""The days that a request for exhaust names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

MAX_DAYS = 31
"""Days of one download, both ends counted."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAY = timedelta(days=1)


class PeriodError(ValueError):
    """Days that cannot be asked for; the message says why."""


class TooManyDaysError(PeriodError):
    """More days than are given at once."""


@dataclass(frozen=True, slots=True)
class Period:
    """UTC days from ``first`` to ``last``, both of them too."""

    first: date
    last: date

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __iter__(self) -> Iterator[date]:
        for number in range(len(self)):
            yield self.first + number * _DAY


def read_period(first: str | None, last: str | None, today: date, *, most: int = MAX_DAYS) -> Period:
    """Return the days that two dates name; what is not given is yesterday.

    Args:
        first: ``YYYY-MM-DD``, or None.
        last: the same.
        today: the day that it is, UTC; it and later ones cannot be asked for.
        most: days that may be asked for at once.

    Raises:
        PeriodError: not of that form, no day of the calendar, the first after the last, or not before today.
        TooManyDaysError: more than ``most``.
    """
    begin, end = _read("fromDate", first, today), _read("toDate", last, today)
    if begin > end:
        raise PeriodError(f"fromDate {begin} is after toDate {end}")
    if end >= today:
        raise PeriodError(f"toDate {end} is not before today, {today} (UTC)")
    period = Period(begin, end)
    if len(period) > most:
        raise TooManyDaysError(f"{len(period)} days were asked for; at most {most} are given at once")
    return period


def _read(name: str, text: str | None, today: date) -> date:
    if text is None:
        return today - _DAY
    if _DATE.fullmatch(text) is None:
        raise PeriodError(f"{name} is not of the form YYYY-MM-DD: {text[:40]!r}")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise PeriodError(f"{name} is no day of the calendar: {text}") from None


def bounds_ms(day: date) -> tuple[int, int]:
    """Return when a UTC day begins and when the next one does, epoch milliseconds."""
    begin = int(datetime.combine(day, time(), UTC).timestamp()) * 1000
    return begin, begin + 86_400_000
