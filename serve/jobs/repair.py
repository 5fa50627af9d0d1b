"""Late dimensions: events that were stored without a copy, or with an old one, get it once their object is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from midstream.dimensions import DimensionType, now_ms
from midstream.logs import get_logger

_log = get_logger(__name__)

_LOOK_BACK_MS = 480_000
"""Rows are looked at for so long after they came: an event may be stored after a row that its worker did not know yet
(minutes at the most), and hosts' clocks differ."""


class RepairsEvents(Protocol):
    """See :class:`midstream.correct.corrector.Corrector`. Blocks."""

    def repair(self, type_: DimensionType, since_ms: int) -> int:
        """Return how many events changed; raise ClickHouseError."""


class Repairs:
    """For who has the lease of the jobs. Threads may share it."""

    def __init__(
        self,
        corrector: RepairsEvents,
        rows: Callable[[str], Any],
        every_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        """
        Args:
            corrector: repairs the events of a type.
            rows: queries ClickHouse.
            every_s: time from one repair to the next.
            clock: monotonic seconds.
            clock_ms: epoch milliseconds.
        """
        self._corrector = corrector
        self._rows = rows
        self._every_s = every_s
        self._clock = clock
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._next_at = float("-inf")
        self._looked_ms: dict[DimensionType, int] = {}  # none yet: all objects of the type are looked at

    @property
    def is_due(self) -> bool:
        """Whether it is time."""
        return self._clock() >= self._next_at

    def if_due(self) -> int:
        """Repair, when it is time; return how many events changed.

        Raises:
            ClickHouseError: what was not looked at will be, next time.
        """
        if not self.is_due or not self._lock.acquire(blocking=False):
            return 0
        try:
            self._next_at = self._clock() + self._every_s
            return self._repair()
        finally:
            self._lock.release()

    def _repair(self) -> int:
        newest = self._rows("SELECT type, toUnixTimestamp64Milli(max(stored_at)) FROM dimension_rows GROUP BY type")
        changed = 0
        for name, stored_ms in newest:
            if name not in set(DimensionType):
                continue
            type_, began_ms = DimensionType(name), self._clock_ms()
            since_ms = max(0, self._looked_ms.get(type_, 0) - _LOOK_BACK_MS)
            if stored_ms >= since_ms:
                changed += self._corrector.repair(type_, since_ms)
            self._looked_ms[type_] = began_ms
        if changed:
            _log.info("dimensions.repaired", events=changed)
        return changed
