"""The requests for downloads as the event loop works with them: short reads at once, changes in threads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar

from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust.requests import Requests
from midstream.registry.reads import Reads
from midstream.settings import Settings
from serve.calls import CallError, Calls

P = ParamSpec("P")
T = TypeVar("T")

_WAIT_MS = 2_000
_TIMEOUT_S = 5.0
_THREADS = 2


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class RequestCalls:
    """Belongs to one event loop. Every coroutine may raise RegistryUnavailable."""

    def __init__(self, settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._reads = Reads(settings, "exhaust-requests")
        self._engine = open_engine(settings, wait_ms=_WAIT_MS)
        self._requests = Requests(self._engine, now)
        self._calls = Calls("exhaust-requests", threads=_THREADS, timeout_s=_TIMEOUT_S)

    def close(self) -> None:
        """Close the connections; calls under way are not waited for."""
        self._reads.close()
        self._calls.close()
        self._engine.dispose()

    def now(self) -> datetime:
        """Return the time, UTC."""
        return self._now()

    async def read(self, method: Callable[Concatenate[Requests, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of :class:`Requests` that only reads; what it raises is raised."""
        return await self._reads.read(lambda engine: method(Requests(engine, self._now), *args, **kwargs))

    async def change(self, method: Callable[Concatenate[Requests, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of :class:`Requests` that changes something; what it raises is raised."""
        try:
            return await self._calls.run(method, self._requests, *args, **kwargs)
        except CallError as error:
            raise RegistryUnavailable(f"the registry cannot be used: {error}") from None
