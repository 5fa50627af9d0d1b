"""What a device believes the time to be, and in which unit it says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AHEAD_MS = 5 * 3600 * 1000

Fault = Literal["", "ahead", "since 1970", "seconds", "microseconds"]


@dataclass(frozen=True, slots=True)
class Clock:
    """A device's clock.

    ``ahead``: five hours. ``since 1970``: it lost the date and counts from the epoch on, from the midnight before
    its first event. ``seconds``, ``microseconds``: right, but ``ets`` is in this unit.
    """

    fault: Fault = ""

    def ets(self, moment_ms: int, midnight_ms: int) -> int:
        """Return what the device writes as ``ets`` at a moment; ``midnight_ms`` began the day of its first event."""
        match self.fault:
            case "ahead":
                return moment_ms + AHEAD_MS
            case "since 1970":
                return moment_ms - midnight_ms
            case "seconds":
                return moment_ms // 1000
            case "microseconds":
                return moment_ms * 1000
        return moment_ms
