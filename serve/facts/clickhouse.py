"""Whether ClickHouse answers, and how much room it has: disks, parts, memory.

On a cluster these are of the server that is asked; each server's own metrics have the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from midstream.clickhouse.client import ClickHouseError
from midstream.disks import tell_bytes
from midstream.logs import get_logger
from midstream.metrics import (
    CLICKHOUSE_MEMORY_BYTES,
    CLICKHOUSE_MEMORY_LIMIT_BYTES,
    PARTITION_PARTS,
    PARTITION_PARTS_LIMIT,
    REACHABLE,
)
from midstream.settings import Settings
from serve.facts.kafka import REACH_S
from serve.finder import LazyClient

_log = get_logger(__name__)

_MAX_DISKS = 32
_QUERY_MS = 10_000

_DISKS = f"SELECT name, free_space, total_space FROM system.disks ORDER BY name LIMIT {_MAX_DISKS}"  # noqa: S608
_PARTS = """SELECT table, max(parts) FROM
(SELECT table, partition_id, count() AS parts FROM system.parts WHERE active AND database = currentDatabase()
GROUP BY table, partition_id) GROUP BY table"""
_PARTS_LIMIT = "SELECT toUInt64(value) FROM system.merge_tree_settings WHERE name = 'parts_to_delay_insert'"
_MEMORY = "SELECT value FROM system.metrics WHERE metric = 'MemoryTracking'"
_MEMORY_LIMIT = "SELECT toUInt64(value) FROM system.server_settings WHERE name = 'max_server_memory_usage'"


class ClickHouseFacts:
    """Belongs to one event loop; asks in threads of its own."""

    def __init__(self, settings: Settings) -> None:
        self._probe = LazyClient(settings, timeout_ms=int(REACH_S * 1000))
        self._client = LazyClient(settings, timeout_ms=_QUERY_MS)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="facts-clickhouse")
        self._refused: set[str] = set()

    async def reach(self) -> None:
        """Tell whether it answers."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(REACH_S + 1):
                await loop.run_in_executor(self._threads, self._probe.rows, "SELECT 1")
        except (ClickHouseError, TimeoutError) as error:
            _log.debug("facts.clickhouse_away", error=str(error)[:300])
            REACHABLE.labels("clickhouse").set(0)
        else:
            REACHABLE.labels("clickhouse").set(1)

    async def look(self) -> None:
        """Look once at what room it has; what it does not answer is not told."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._look)

    def close(self) -> None:
        """Close the connections; what is being asked is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._probe.close()
        self._client.close()

    def _look(self) -> None:
        for told, query, tell in (
            ("disks", _DISKS, _tell_disks),
            ("parts", _PARTS, _tell_parts),
            ("parts_limit", _PARTS_LIMIT, lambda rows: PARTITION_PARTS_LIMIT.set(rows[0][0])),
            ("memory", _MEMORY, lambda rows: CLICKHOUSE_MEMORY_BYTES.set(rows[0][0])),
            ("memory_limit", _MEMORY_LIMIT, lambda rows: CLICKHOUSE_MEMORY_LIMIT_BYTES.set(rows[0][0])),
        ):
            if not self._ask(told, query, tell):
                return

    def _ask(self, told: str, query: str, tell: Callable[[Any], None]) -> bool:
        """Ask, and tell; return whether ClickHouse answers at all."""
        try:
            rows = self._client.rows(query)
        except ClickHouseError as error:
            if error.code is None:
                return False
            if told not in self._refused:  # a missing grant, say: one line for it, not one a minute
                self._refused.add(told)
                _log.warning("facts.clickhouse_refuses", asked=told, error=str(error)[:300])
            return True
        if rows:
            tell(rows)
        return True


def _tell_disks(rows: list[tuple[str, int, int]]) -> None:
    for name, free, total in rows:
        tell_bytes(f"clickhouse/{name}", free, total)


def _tell_parts(rows: list[tuple[str, int]]) -> None:
    PARTITION_PARTS.clear()
    for table, parts in rows:
        PARTITION_PARTS.labels(table).set(parts)
