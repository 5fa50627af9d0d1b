"""What the routes of data sync call."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from midstream.clickhouse.client import ClickHouseError
from midstream.registry.sync.erased_cache import ErasedCache
from midstream.settings import Settings
from serve.calls import CallError, Calls
from serve.finder import LazyClient
from serve.sync.alive import alive
from serve.sync.calls import JobCalls

MAX_WAITS = 64
"""Replies of one process that wait for their job; those beyond it are given at once."""

_THREADS = 2


class KnowsErased(Protocol):
    """Tells what was erased."""

    async def among(self, type_: str, ids: Collection[str]) -> set[str]:
        """Return those of some ids that were erased; raise RegistryUnavailable."""


class FindsAlive(Protocol):
    """Tells which objects there are."""

    async def alive(self, type_: str, ids: Sequence[str]) -> set[str]:
        """Return those of some ids that ClickHouse has a row of; raise ClickHouseError."""


class AliveCalls:
    """Asks ClickHouse in threads of its own. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._client = LazyClient(settings)
        self._calls = Calls("alive", threads=_THREADS, timeout_s=settings.clickhouse_timeout_ms / 1000)

    def close(self) -> None:
        """Close the connections; calls under way are not waited for."""
        self._calls.close()
        self._client.close()

    async def alive(self, type_: str, ids: Sequence[str]) -> set[str]:
        """See :func:`serve.sync.alive.alive`."""
        try:
            return await self._calls.run(alive, self._client.rows, type_, ids)
        except CallError as error:
            raise ClickHouseError(str(error), None) from None


@dataclass(frozen=True, slots=True)
class Syncs:
    """Jobs, and what else the routes of data sync need.

    Attributes:
        wait_s: longest wait of a reply for its job.
    """

    calls: JobCalls
    erased: KnowsErased
    finder: FindsAlive
    wait_s: float = 10.0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_WAITS))


@contextmanager
def open_syncs(settings: Settings) -> Iterator[Syncs]:
    """Open it; ClickHouse is connected to when it is first needed.

    Raises:
        midstream.registry.errors.RegistryUnavailable: the registry cannot be opened.
    """
    calls, erased, finder = JobCalls(settings), ErasedCache(settings), AliveCalls(settings)
    try:
        yield Syncs(calls, erased, finder)
    finally:
        for one in (calls, erased, finder):
            one.close()
