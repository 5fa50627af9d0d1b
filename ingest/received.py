"""When batches were received, and which of them are on their way: what a mark may promise depends on both."""

from __future__ import annotations

import time
from collections.abc import Callable


class Received:
    """The batches that were received and are neither in Kafka nor in the spool yet. Belongs to one event loop."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._least_ms = 0
        self._on_their_way: dict[int, int] = {}
        self._next = 0

    def enter(self) -> tuple[int, int]:
        """Receive a batch now: return its number, and its moment of receipt in epoch milliseconds.

        It is on its way from that moment: nothing can look between the two.
        """
        number = self._next
        self._next += 1
        moment = self._on_their_way[number] = self.now_ms()
        return number, moment

    def leave(self, number: int) -> None:
        """Say that a batch has arrived, or never will."""
        del self._on_their_way[number]

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._on_their_way

    def low_ms(self, spooled_ms: int | None) -> int:
        """Return the moment before which everything received has arrived, ``spooled_ms`` being the oldest in a spool.

        No batch will be received before it: if the clock is set back, time stands still until it has caught up.
        """
        moments = [self.now_ms(), *self._on_their_way.values()]
        return min(moments) if spooled_ms is None else min(*moments, spooled_ms)

    def now_ms(self) -> int:
        """Return the time, never before one that was told earlier."""
        self._least_ms = max(self._least_ms, self._clock_ns() // 1_000_000)
        return self._least_ms
