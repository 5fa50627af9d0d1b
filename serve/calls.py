"""Calls that block, in threads beside the event loop: so many at once, so many waiting, so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MAX_WAITING = 256


class CallError(Exception):
    """A call did not end in time, or too many wait already."""


class Calls:
    """Runs calls. Belongs to one event loop."""

    def __init__(self, name: str, *, threads: int, timeout_s: float) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._timeout_s = timeout_s
        self._waiting = 0

    def close(self) -> None:
        """End the threads; calls under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call; what it raises is raised.

        Raises:
            CallError: nothing is known of its outcome.
        """
        if self._waiting >= _MAX_WAITING:
            raise CallError("too many calls wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, partial(copy_context().run, call, *args, **kwargs)
                )
        except TimeoutError:
            raise CallError("no answer in time") from None
        finally:
            self._waiting -= 1
