"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. Only FAIL makes the command end with 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the command.

    Attributes:
        check: the subject, and after a dot what of it.
        level: how bad it is.
        message: what was found; no secret is in it.
        change: what to do; "" where nothing is to be done.
    """

    check: str
    level: Level
    message: str
    change: str = ""


def ok(check: str, message: str) -> Result:
    """Return that all is well."""
    return Result(check, Level.OK, message)


def warn(check: str, message: str, change: str) -> Result:
    """Return what works but should be changed."""
    return Result(check, Level.WARN, message, change)


def fail(check: str, message: str, change: str) -> Result:
    """Return what does not work, or will lose something."""
    return Result(check, Level.FAIL, message, change)
