"""The clocks of devices: most are right, some are not, some devices have none."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_S = 1_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that is ``offset_us`` microseconds ahead of the true time; None: the device has none."""

    offset_us: int | None

    def reads(self, now_us: int) -> str | None:
        """Return what it shows at a moment (microseconds since 1970), in ISO 8601; None for no clock."""
        if self.offset_us is None:
            return None
        moment = _EPOCH + timedelta(microseconds=now_us + self.offset_us)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def draw_clock(choice: random.Random) -> Clock:
    """Return a clock as fleets have them: of a hundred, 85 are right to some seconds, 5 to some minutes, 3 are hours
    behind, 2 are a year ahead, and 5 devices have none."""
    kind = choice.random()
    if kind < 0.85:
        return Clock(choice.randrange(-2 * _S, 2 * _S))
    if kind < 0.90:
        return Clock(choice.randrange(-240 * _S, 240 * _S))
    if kind < 0.93:
        return Clock(-choice.randrange(3_600 * _S, 48 * 3_600 * _S))
    if kind < 0.95:
        return Clock(365 * 24 * 3_600 * _S)
    return Clock(None)
