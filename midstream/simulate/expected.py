"""What a device's state has to be after the reports that were taken, counted by the one who sent them."""

from __future__ import annotations

from collections import OrderedDict

from midstream.devices.report import Report, Value
from midstream.devices.state import Place, identity_of, place_of

_REMEMBERED = 64


class ExpectedState:
    """Folds reports as they are sent, in bounded memory: a place for each key and for the last ``override``.

    When a report was received is the sender's guess: where places depend on it (no clock, or one far ahead), the
    reports of the device have to be sent one after the other.
    """

    def __init__(self) -> None:
        self.reports = 0
        """Different ones."""
        self._keys: dict[str, tuple[Place, Value | None]] = {}
        self._override: Place | None = None
        self._known: OrderedDict[tuple[int | None, bytes | str], None] = OrderedDict()

    def add(self, report: Report) -> None:
        """Count a report that was taken; one that is among the last 64 changes nothing."""
        identity = identity_of(report)
        if identity in self._known:
            return
        self._known[identity] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        self.reports += 1
        place = place_of(report)
        if report.override and (self._override is None or place > self._override):
            self._override = place
        for key, value in report.values.items():
            known = self._keys.get(key)
            if known is None or place >= known[0]:
                self._keys[key] = place, value

    def values(self) -> dict[str, Value]:
        """Return the state: the value of each key."""
        return {
            key: value
            for key, (place, value) in self._keys.items()
            if value is not None and (self._override is None or place >= self._override)
        }
