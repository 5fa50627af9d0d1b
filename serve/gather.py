"""Requests that come at the same time, worked on together: one call of what blocks for many of them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from prometheus_client import Gauge

from serve.calls import CallError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is worked on together, and how much may wait."""

    together: int
    """Most requests of one call."""
    together_bytes: int
    """Most bytes of one call, but for a single request."""
    waiting: int
    """Most requests that wait; beyond it they are refused."""
    waiting_bytes: int
    calls: int
    """Most calls at once."""
    apart_s: float
    """Time between two calls, so that those that come meanwhile go together; longest wait while fewer than ``calls``
    are under way."""
    timeout_s: float
    """Longest wait of a request."""


class _Waiting(NamedTuple, Generic[T, R]):
    item: T
    size_bytes: int
    done: asyncio.Future[R]


class Gather(Generic[T, R]):
    """Belongs to one event loop. A lone request is worked on at once; those that come soon after go together."""

    def __init__(self, name: str, work: Callable[[Sequence[T]], Sequence[R]], bounds: Bounds, waiting: Gauge) -> None:
        """``work`` runs in a thread and returns a result for each item, in order; what it raises, each caller gets."""
        self._work = work
        self._bounds = bounds
        self._threads = ThreadPoolExecutor(bounds.calls, thread_name_prefix=name)
        self._gauge = waiting
        self._queue: deque[_Waiting[T, R]] = deque()
        self._queue_bytes = 0
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._began = float("-inf")
        self._told = 0

    def close(self) -> None:
        """End the threads; calls under way are not waited for."""
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        self._tell()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, item: T, size_bytes: int = 0) -> R:
        """Return the result of an item; what the work raises is raised.

        Raises:
            CallError: too many wait, or there was no result in time; nothing is known of the outcome then.
        """
        bounds = self._bounds
        if len(self._queue) >= bounds.waiting or self._queue_bytes + size_bytes > bounds.waiting_bytes:
            raise CallError("too many requests wait already")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, size_bytes, done))
        self._queue_bytes += size_bytes
        self._begin_calls()
        try:
            async with asyncio.timeout(bounds.timeout_s):
                return await done
        except TimeoutError:
            raise CallError("no answer in time") from None

    def _begin_calls(self) -> None:
        bounds = self._bounds
        while self._queue and self._under_way < bounds.calls:
            left_s = self._began + bounds.apart_s - time.monotonic()
            if left_s > 0 and len(self._queue) < bounds.together:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(left_s, self._ring)
                return
            taken = self._take()
            if taken:
                self._tell()
                self._under_way += 1
                self._began = time.monotonic()
                call = asyncio.get_running_loop().run_in_executor(
                    self._threads, self._work, [one.item for one in taken]
                )
                call.add_done_callback(lambda ended, taken=taken: self._end_call(taken, ended))  # type: ignore[misc]

    def _tell(self) -> None:
        """Set the gauge: now and then, as each time costs."""
        now = len(self._queue)
        if now != self._told:
            self._gauge.inc(now - self._told)
            self._told = now

    def _ring(self) -> None:
        self._timer = None
        self._begin_calls()

    def _take(self) -> list[_Waiting[T, R]]:
        taken: list[_Waiting[T, R]] = []
        size_bytes = 0
        while self._queue and len(taken) < self._bounds.together:
            if taken and size_bytes + self._queue[0].size_bytes > self._bounds.together_bytes:
                break
            one = self._queue.popleft()
            self._queue_bytes -= one.size_bytes
            if not one.done.done():  # its caller went away before it was begun
                taken.append(one)
                size_bytes += one.size_bytes
        return taken

    def _end_call(self, taken: Sequence[_Waiting[T, R]], ended: asyncio.Future[Sequence[R]]) -> None:
        self._under_way -= 1
        error = CallError("the process stops") if ended.cancelled() else ended.exception()
        results = [] if error is not None else ended.result()
        for number, one in enumerate(taken):
            if one.done.done():
                continue
            if error is not None:
                one.done.set_exception(error)
            else:
                one.done.set_result(results[number])
        self._begin_calls()
        self._tell()
