"""The right to write, of both stages: lost for good once this process has stood still for as long as Kafka waits for a
worker.

A worker that was frozen (a stopped process, a suspended machine) wakes up after its partitions were given away and,
before it learns of that, finishes what it was doing. Deduplication tokens make such an insert of ``store`` harmless as
far back as ClickHouse remembers them; this check keeps an older one from being sent at all, and ``validate`` from
sealing under a number of partitions that is no longer used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_TICK_S = 1.0


class LeaseLostError(Exception):
    """This worker was silent for longer than Kafka waits for it."""


class Lease:
    """Ticks in the event loop; any thread may check."""

    def __init__(self, session_timeout_ms: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = session_timeout_ms / 1000
        self._clock = clock
        self._last_tick = clock()
        self._lost = False

    def begin(self) -> None:
        """Hold it from now on: whoever has had nothing to do until now has lost nothing by a gap."""
        self._lost = False
        self._last_tick = self._clock()

    def tick(self) -> None:
        """Note that the process runs. A gap as long as the session timeout loses the lease for good."""
        now = self._clock()
        if now - self._last_tick >= self._limit_s:
            self._lost = True
        self._last_tick = now

    def check(self) -> None:
        """Raise unless the lease is held.

        Raises:
            LeaseLostError: the process must end and join its group anew.
        """
        if self._lost or self._clock() - self._last_tick >= self._limit_s:
            raise LeaseLostError(f"this worker stood still for {self._limit_s:g} s or more")

    async def run(self) -> None:
        """Tick until cancelled; raise when the lease is lost."""
        while True:
            self.tick()
            self.check()
            await asyncio.sleep(_TICK_S)
