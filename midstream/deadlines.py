"""Time limits for very many short waits: one timer for all of them. A timer each would cost more than most waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

Expire = Callable[[], None]


class Deadlines:
    """Waits that may each take ``timeout_s``: the one that began first ends first. Belongs to one event loop."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._waiting: dict[Expire, float] = {}  # in the order in which they began, and end
        self._timer: asyncio.TimerHandle | None = None

    def add(self, expire: Expire, loop: asyncio.AbstractEventLoop) -> None:
        """Call ``expire`` after ``timeout_s``, unless it is discarded before. It must not be waiting already."""
        deadline = loop.time() + self.timeout_s
        self._waiting[expire] = deadline
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire, loop)

    def discard(self, expire: Expire) -> None:
        """Call ``expire`` no more; done again, it changes nothing."""
        self._waiting.pop(expire, None)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        try:
            while self._waiting:
                expire, deadline = next(iter(self._waiting.items()))
                if deadline > now:
                    break
                del self._waiting[expire]
                expire()
        finally:
            if self._waiting:
                self._timer = loop.call_at(next(iter(self._waiting.values())), self._expire, loop)


class Limit:
    """``with Limit(deadlines):`` what is inside is cancelled when its time is up, and ``TimeoutError`` raised.

    As with :func:`asyncio.timeout`, a cancellation that comes from elsewhere as well goes on as what it is.
    """

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_inside", "_loop", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._inside = False
        self._expired = False

    def __enter__(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a limit is for what runs in a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._inside = True
        self._deadlines.add(self._expire, self._loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        self._inside = False
        self._deadlines.discard(self._expire)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def end(self) -> None:
        """Say that time is up. What is inside may say so itself: it is cancelled when it waits next."""
        # Not now: a running task would be cancelled wherever it waits next, inside or not.
        self._loop.call_soon(self._expire)

    def _expire(self) -> None:
        if self._inside and not self._expired:
            self._expired = True
            self._task.cancel()
