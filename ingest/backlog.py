"""How many batches may wait to become durable, and how fast those are answered that may not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

_FLOOR = 64
"""So many may always wait: where Kafka is slow, and not busy, this many at once still pass."""

_START = 256
_TARGET_S = 0.075
_INTERVAL_S = 0.1
_GROWTH = 1.125
_NEARLY = 0.75

_REFUSALS_PER_S = 500
_LONGEST_PAUSE_S = 2.0


class Backlog:
    """Counts the batches on their way to Kafka or the spool. Belongs to one event loop.

    Where those that got through in 0.1 s had to wait for more than 75 ms on average, no more may wait than get through
    in 75 ms at this pace; otherwise, if the bound was nearly reached, an eighth more. So what is taken up is answered
    soon, however much comes, and the bound is as high as Kafka allows.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._limit = min(_START, most)
        self._waiting = 0
        self._left = self._since = clock()
        self._passed = self._peak = 0
        self._waited_s = 0.0

    @property
    def waiting(self) -> int:
        """Batches that wait now."""
        return self._waiting

    @property
    def limit(self) -> int:
        """How many may."""
        return self._limit

    @property
    def full(self) -> bool:
        """Whether one more would have to wait too long."""
        return self._waiting >= self._limit

    def enter(self) -> float:
        """Let a batch wait; return what :meth:`leave` is to be given."""
        now = self._clock()
        if not self._waiting and now - self._left > _INTERVAL_S:
            self._begin(now)
        elif self._passed and now - self._since >= _INTERVAL_S:
            self._adjust(now - self._since)
            self._begin(now)
        self._waiting += 1
        self._peak = max(self._peak, self._waiting)
        return now

    def leave(self, entered: float) -> None:
        """End the wait of a batch, however it ended."""
        self._left = self._clock()
        self._waiting -= 1
        self._passed += 1
        self._waited_s += self._left - entered

    def _adjust(self, lasted_s: float) -> None:
        if self._waited_s > _TARGET_S * self._passed:
            self._limit = min(self._limit, max(math.ceil(self._passed / lasted_s * _TARGET_S), _FLOOR))
        elif self._peak > self._limit * _NEARLY:
            self._limit = min(math.ceil(self._limit * _GROWTH), self._most)

    def _begin(self, now: float) -> None:
        self._since = now
        self._passed = 0
        self._peak = self._waiting
        self._waited_s = 0.0


class Refusals:
    """Spaces the answers to what is refused for overload: whoever comes again at once, against what ``Retry-After``
    says, would otherwise take the time of those that were taken up."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Requests whose answer waits: one a connection at the most."""
        return self._waiting

    async def wait(self) -> None:
        """Wait until this request may be answered."""
        self._waiting += 1
        try:
            await asyncio.sleep(self.pause_s())
        finally:
            self._waiting -= 1

    def pause_s(self) -> float:
        """Return how long the answer to this request has to wait: 2 s at the most."""
        now = self._clock()
        turn = max(self._next, now)
        self._next = min(turn + 1 / _REFUSALS_PER_S, now + _LONGEST_PAUSE_S)
        return turn - now
