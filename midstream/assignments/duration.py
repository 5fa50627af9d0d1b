"""Durations: from the forms in which learning platforms write them to microseconds, and out again."""

from __future__ import annotations

import math
import re
from fractions import Fraction

MAX_DAYS = 106_751_991
"""Whole days in the largest Int64 of microseconds."""

WRONG_FORMAT = "Duration has wrong format. Use one of these formats instead: [HH:MM:SS, PT...]."
TOO_LONG = f"The number of days must be between 0 and {MAX_DAYS}."

_SECOND_US = 1_000_000
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_MAX_US = MAX_DAYS * _DAY_S * _SECOND_US
_MAX_CHARACTERS = 100  # no duration in range is longer, and reading digits takes time

_FRACTION = r"(?:[.,][0-9]+)?"
_CLOCK = re.compile(
    r"(?:(?P<days>[0-9]+) (?:days?,? )?)?"
    rf"(?:(?:(?P<hours>[0-9]+):)?(?P<minutes>[0-9]+):)?(?P<seconds>[0-9]+{_FRACTION})"
)
_DAYS = re.compile(r"(?P<days>[0-9]+) days?")
_ISO = re.compile(
    rf"P(?=[0-9T])(?:(?P<days>[0-9]+{_FRACTION})D)?"
    rf"(?:T(?=[0-9])(?:(?P<hours>[0-9]+{_FRACTION})H)?(?:(?P<minutes>[0-9]+{_FRACTION})M)?"
    rf"(?:(?P<seconds>[0-9]+{_FRACTION})S)?)?"
)
_UNITS_S = {"days": _DAY_S, "hours": _HOUR_S, "minutes": _MINUTE_S, "seconds": 1}


class DurationError(ValueError):
    """No duration that can be kept; the message is what the reply says."""


def read_duration(value: str | int | float) -> int:
    """Return a duration in microseconds, rounded to the nearest one.

    Text is ``[[D days, ][HH:]MM:]SS[.ffffff]`` (any part may exceed its clock: ``25:00:00``), ``D days`` or ISO 8601 in
    days, hours, minutes and seconds; a number is seconds.

    Raises:
        DurationError: it is none of these, negative, or longer than :data:`MAX_DAYS` days.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DurationError(WRONG_FORMAT)
    seconds = _read_text(value) if isinstance(value, str) else _read_number(value)
    if seconds < 0:
        raise DurationError(WRONG_FORMAT)
    us = round(seconds * _SECOND_US)
    if us > _MAX_US:
        raise DurationError(TOO_LONG)
    return us


def show_duration(us: int) -> str:
    """Return ``[D ]HH:MM:SS[.ffffff]`` of microseconds, which are not negative."""
    seconds, fraction = divmod(us, _SECOND_US)
    days, seconds = divmod(seconds, _DAY_S)
    hours, seconds = divmod(seconds, _HOUR_S)
    minutes, seconds = divmod(seconds, _MINUTE_S)
    text = f"{hours:02}:{minutes:02}:{seconds:02}"
    if fraction:
        text += f".{fraction:06}"
    return f"{days} {text}" if days else text


def _read_number(value: int | float) -> int | Fraction:
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        raise DurationError(WRONG_FORMAT)
    return Fraction(repr(value))  # 0.1 is meant as a tenth, not as the binary fraction nearest to it


def _read_text(value: str) -> Fraction:
    text = value.strip(" \t\r\n")
    if len(text) > _MAX_CHARACTERS:
        raise DurationError(WRONG_FORMAT)
    match = _CLOCK.fullmatch(text) or _DAYS.fullmatch(text) or _ISO.fullmatch(text)
    if match is None:
        raise DurationError(WRONG_FORMAT)
    parts = match.groupdict()
    return sum((Fraction(part.replace(",", ".")) * _UNITS_S[name] for name, part in parts.items() if part), Fraction(0))
