"""Which requests are taken up at all: the bound of what one process works on at once, in number and in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_ALWAYS = 200
"""So many at once are never too many: they wait for one another for some tens of milliseconds."""

_LONG_S = 0.02
_PATIENCE_S = 0.25


class Admission:
    """Counts the requests under way, and refuses what would have to wait too long. Belongs to one event loop.

    What waits under overload waits for the event loop, so its turns are timed: a turn does what was ready at its
    beginning, and a batch passes through some five between its request and its reply. Where every turn has been longer
    than 20 ms for 0.25 s, more comes than can be done (Nichols and Jacobson, "Controlling Queue Delay", 2012, tell a
    standing queue from a burst like this): from then on only 20 ms of work are taken up in a turn. Of a burst 0.25 s
    are, before it is known for one.
    """

    def __init__(self, max_requests: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_requests = max_requests
        self._clock = clock
        self._under_way = 0
        self._in_turn = False
        self._turn_began = 0.0
        self._turn_ended = 0.0
        self._behind_since: float | None = None

    @property
    def under_way(self) -> int:
        """Requests taken up and not ended."""
        return self._under_way

    def enter(self) -> bool:
        """Take up a request, unless it is one too many. Whoever was let in has to leave."""
        if not self._in_turn:
            self._begin_turn()
        if self._under_way >= self._max_requests or (self._under_way >= _ALWAYS and self._turn_is_full()):
            return False
        self._under_way += 1
        return True

    def leave(self) -> None:
        """End a request that was taken up."""
        self._under_way -= 1

    def _begin_turn(self) -> None:
        self._in_turn = True
        self._turn_began = self._clock()
        if self._turn_began - self._turn_ended > _PATIENCE_S:  # nothing came for a while
            self._behind_since = None
        asyncio.get_running_loop().call_soon(self._end_turn)  # it comes after all that is ready now

    def _end_turn(self) -> None:
        self._in_turn = False
        self._turn_ended = self._clock()
        if self._turn_ended - self._turn_began <= _LONG_S:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._turn_began

    def _turn_is_full(self) -> bool:
        now = self._clock()
        behind = self._behind_since is not None and now - self._behind_since > _PATIENCE_S
        return now - self._turn_began > (_LONG_S if behind else _PATIENCE_S)
