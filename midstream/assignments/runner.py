"""Telemetry as a runner of code exercises sends it: only what indicators are made of.

Times are milliseconds since 1970. What is absent or null is empty; what is there has its type. Members that nobody
knows are left alone, and the code of runs is not read.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

Moment = Annotated[float, msgspec.Meta(ge=-8.64e15, le=8.64e15)]
"""As far as a runner's clock can go: 100 million days around 1970."""
Position = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

_WHERE = re.compile(r"(?s)(?P<what>.*) - at `(?P<path>.*)`")


class TelemetryError(ValueError):
    """Telemetry of which no indicators can be made; the message says where."""


class Session(msgspec.Struct, frozen=True):
    """A time during which the exercise was open."""

    started_at: Moment | None = None
    ended_at: Moment | None = None


class Run(msgspec.Struct, frozen=True):
    """A compilation, or a test."""

    exit_code: int | float | None = None


class Step(msgspec.Struct, frozen=True):
    """A step of the exercise."""

    slug: str | None = None
    position: Position | None = None
    opened_at: Moment | None = None
    completed_at: Moment | None = None
    is_completed: bool | None = None
    compilations: tuple[Run, ...] | None = None
    tests: tuple[Run, ...] | None = None
    ai_interactions: tuple[msgspec.Raw, ...] | None = None


class Telemetry(msgspec.Struct, frozen=True):
    """What a learner did with an exercise."""

    last_interaction_at: Moment | None = None
    workout_session: tuple[Session, ...] | None = None
    steps: tuple[Step, ...] | None = None


_decoder = msgspec.json.Decoder(Telemetry)


def read_telemetry(raw: bytes) -> Telemetry:
    """Return the telemetry of a JSON text.

    Raises:
        TelemetryError: it is none; the message begins with where, such as ``$.steps[3].opened_at``.
    """
    try:
        return _decoder.decode(raw)
    except RecursionError:
        raise TelemetryError("$: nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        match = _WHERE.fullmatch(str(error))
        what, path = (match["what"], match["path"]) if match is not None else (str(error), "$")
        raise TelemetryError(f"{path}: {what.replace('`', '')}") from None
