"""Reading the registry from an event loop: short reads of a few rows by key, each with a limit to its wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from sqlalchemy import Engine

from midstream.registry.engine import open_reader
from midstream.registry.errors import RegistryUnavailable
from midstream.settings import Settings

TIMEOUT_S = 2.0
_THREADS = 4
_MAX_WAITING = 256

_T = TypeVar("_T")


class Reads:
    """Belongs to one event loop.

    SQLite answers in under 0.3 ms, so it is read in the event loop, never waiting for a lock there; what waits for a
    lock, and PostgreSQL, is read in threads.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self.engine = open_reader(settings, wait_ms=int(TIMEOUT_S * 1000))
        """For longer reads, in the caller's own threads."""
        self._instant = open_reader(settings, wait_ms=0) if self.engine.dialect.name == "sqlite" else None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self._waiting = 0

    def close(self) -> None:
        """Close the connections; reads under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()
        if self._instant is not None:
            self._instant.dispose()

    async def read(self, read: Callable[[Engine], _T]) -> _T:
        """Return what ``read`` returns; it may be called twice.

        Raises:
            RegistryUnavailable: ``read`` raised it, did not end in time, or too many wait already.
        """
        if self._instant is not None:
            try:
                return read(self._instant)
            except RegistryUnavailable:  # locked just now: wait for it in a thread
                pass
        if self._waiting >= _MAX_WAITING:
            raise RegistryUnavailable("the registry cannot be read: too many look-ups wait for it")
        self._waiting += 1
        try:
            return await call_within(self._threads, lambda: read(self.engine))
        finally:
            self._waiting -= 1


async def call_within(threads: ThreadPoolExecutor, call: Callable[[], _T]) -> _T:
    """Run a call of the registry in a thread.

    Raises:
        RegistryUnavailable: it did not end in time, or says so itself.
    """
    try:
        # wait_for() of Python 3.11 loses a cancellation that comes together with the result (python/cpython#86296).
        async with asyncio.timeout(TIMEOUT_S):
            return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, call)
    except TimeoutError:
        raise RegistryUnavailable("the registry cannot be used: no answer in time") from None
