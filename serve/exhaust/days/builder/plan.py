"""How a day is read: in parts small enough for ClickHouse to sort in memory, and what each hour must hold. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midstream.exhaust.queries import Second

SLICE_EVENTS = 500_000
SLICE_BYTES = 256 << 20
"""What one query sorts: the larger, the fewer queries read a part of ClickHouse that holds events of all hours."""

_HOUR_MS = 3_600_000
_DAY_HOURS = 24


@dataclass(frozen=True, slots=True)
class Slice:
    """What one query reads: ``events`` events received from ``begin_ms`` to before ``end_ms``."""

    begin_ms: int
    end_ms: int
    events: int


@dataclass(frozen=True, slots=True)
class Hour:
    """What one hour's file holds: ``events`` events, the first received at ``first_ms``."""

    hour: int
    events: int
    first_ms: int


def plan_slices(
    seconds: Sequence[Second], *, most_events: int = SLICE_EVENTS, most_bytes: int = SLICE_BYTES
) -> list[Slice]:
    """Return the parts of a day in order; only a second by itself may hold more than ``most_events`` or
    ``most_bytes``."""
    slices: list[Slice] = []
    events = bytes_ = begin_ms = end_ms = 0
    for second in seconds:
        if events and (events + second.events > most_events or bytes_ + second.bytes > most_bytes):
            slices.append(Slice(begin_ms, end_ms, events))
            events = bytes_ = 0
        if not events:
            begin_ms = second.at_ms
        events += second.events
        bytes_ += second.bytes
        end_ms = second.at_ms + 1000
    if events:
        slices.append(Slice(begin_ms, end_ms, events))
    return slices


def plan_hours(seconds: Sequence[Second]) -> list[Hour]:
    """Return the hours of a day that hold events, in order."""
    hours: list[Hour] = []
    for second in seconds:
        hour = second.at_ms // _HOUR_MS % _DAY_HOURS
        if hours and hours[-1].hour == hour:
            last = hours[-1]
            hours[-1] = Hour(hour, last.events + second.events, last.first_ms)
        else:
            hours.append(Hour(hour, second.events, second.first_ms))
    return hours
