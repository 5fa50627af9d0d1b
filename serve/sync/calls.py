"""The jobs of the registry as an event loop works with them: short reads at once, changes in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.reads import Reads
from midstream.registry.sync.jobs import Jobs
from midstream.settings import Settings
from serve.calls import CallError, Calls

P = ParamSpec("P")
T = TypeVar("T")

_WAIT_MS = 2_000
_TIMEOUT_S = 5.0
_THREADS = 2


class JobCalls:
    """Belongs to one event loop. Every coroutine may raise RegistryUnavailable."""

    def __init__(self, settings: Settings) -> None:
        self._reads = Reads(settings, "jobs")
        self._engine = open_engine(settings, wait_ms=_WAIT_MS)
        self._jobs = Jobs(self._engine)
        self._calls = Calls("jobs", threads=_THREADS, timeout_s=_TIMEOUT_S)

    def close(self) -> None:
        """Close the connections; calls under way are not waited for."""
        self._reads.close()
        self._calls.close()
        self._engine.dispose()

    async def read(self, method: Callable[Concatenate[Jobs, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of :class:`Jobs` that only reads; what it raises is raised."""
        return await self._reads.read(lambda engine: method(Jobs(engine), *args, **kwargs))

    async def change(self, method: Callable[Concatenate[Jobs, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of :class:`Jobs` that changes something; what it raises is raised."""
        try:
            return await self._calls.run(method, self._jobs, *args, **kwargs)
        except CallError as error:
            raise RegistryUnavailable(f"the registry cannot be used: {error}") from None
