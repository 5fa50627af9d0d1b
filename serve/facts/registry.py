"""Whether the registry answers, and how many devices are silent."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from midstream.logs import get_logger
from midstream.metrics import DEVICES_SEEN, REACHABLE
from midstream.registry.engine import open_reader
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.fleet.seen import count_seen, is_there
from midstream.settings import Settings
from serve.facts.kafka import REACH_S

_log = get_logger(__name__)

_COUNT_MS = 20_000
_DAY = timedelta(days=1)


class RegistryFacts:
    """Belongs to one event loop; asks in threads of its own."""

    def __init__(self, settings: Settings) -> None:
        self._probe = open_reader(settings, wait_ms=int(REACH_S * 1000))
        self._engine = open_reader(settings, wait_ms=_COUNT_MS)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="facts-registry")

    async def reach(self) -> None:
        """Tell whether it answers."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(REACH_S + 1):
                await loop.run_in_executor(self._threads, is_there, self._probe)
        except (RegistryUnavailable, TimeoutError) as error:
            _log.debug("facts.registry_away", error=str(error))
            REACHABLE.labels("registry").set(0)
        else:
            REACHABLE.labels("registry").set(1)

    async def look(self) -> None:
        """Count devices once."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._look)

    def close(self) -> None:
        """Close the connections; what is being asked is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._probe.dispose()
        self._engine.dispose()

    def _look(self) -> None:
        try:
            seen = count_seen(self._engine, datetime.now(UTC), _DAY)
        except RegistryUnavailable as error:
            _log.debug("facts.registry_away", error=str(error))
            DEVICES_SEEN.clear()
            return
        DEVICES_SEEN.labels("reporting").set(seen.reporting)
        DEVICES_SEEN.labels("silent").set(seen.silent)
