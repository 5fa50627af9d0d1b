"""How many events are unaccounted for, asking for each minute only until it is settled. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Minute:
    """What the accounting says of a minute, which begins at ``at_s`` (epoch seconds)."""

    at_s: int
    in_flight: int
    wrong: int
    """Events missing, and rows too many."""


class Settled:
    """Which minutes are settled: complete, so that what is missing of them now is missing for good."""

    def __init__(self, since_s: int) -> None:
        self.since_s = since_s
        """The first minute that is not settled, epoch seconds."""
        self.in_flight = 0
        """In minutes that are not settled, as of the last look."""
        self.wrong = 0
        """Likewise."""
        self._open = False

    def begin(self) -> None:
        """Begin to look at all minutes from :attr:`since_s` on."""
        self.in_flight = self.wrong = 0
        self._open = False

    def take(self, minutes: Iterable[Minute], until_s: int, complete_until_s: int) -> list[Minute]:
        """Take what there is between the last call's end and ``until_s`` (epoch seconds), in order; return the
        minutes that are settled now and in which something is wrong.

        A minute is settled when it lies before ``complete_until``, nothing in it is in flight, and all before it are
        settled.
        """
        lossy = []
        for minute in minutes:
            self._open = self._open or minute.in_flight > 0 or minute.at_s + MINUTE_S > complete_until_s
            if self._open:
                self.in_flight += minute.in_flight
                self.wrong += minute.wrong
                continue
            self.since_s = minute.at_s + MINUTE_S
            if minute.wrong:
                lossy.append(minute)
        if not self._open:  # nothing is left before there
            self.since_s = max(self.since_s, min(until_s, complete_until_s) // MINUTE_S * MINUTE_S)
        return lossy
