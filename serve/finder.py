"""Reads dimension rows from ClickHouse."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import msgspec

from midstream.clickhouse.client import ClickHouse, ClickHouseError, open_client
from midstream.settings import Settings

_THREADS = 4
_MAX_WAITING = 256

_QUERY = """\
SELECT attributes, version, updated_at
FROM dimensions
WHERE type = {type:String} AND id = {id:String} AND NOT deleted
LIMIT 1
"""


class LazyClient:
    """A ClickHouse client that connects when it is first needed, and anew after it failed. Threads may share it."""

    def __init__(self, settings: Settings, *, timeout_ms: int | None = None, max_threads: int | None = None) -> None:
        self._settings = settings
        self._timeout_ms = timeout_ms
        self._max_threads = max_threads
        self._client: ClickHouse | None = None
        self._lock = threading.Lock()

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Any:
        """Run a query and return all rows.

        Raises:
            ClickHouseError: it was not answered.
        """
        return self.connected().rows(sql, parameters)

    def connected(self) -> ClickHouse:
        """Return the client.

        Raises:
            ClickHouseError: ClickHouse does not answer.
        """
        with self._lock:
            if self._client is None:
                self._client = open_client(self._settings, timeout_ms=self._timeout_ms, max_threads=self._max_threads)
            return self._client

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


class DimensionFinder:
    """Finds rows in ClickHouse, in threads of its own. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._client = LazyClient(settings)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="finder")
        self._timeout_s = settings.clickhouse_timeout_ms / 1000
        self._waiting = 0

    async def find(self, type_: str, id_: str) -> dict[str, Any] | None:
        """Return the row, None when there is none.

        Raises:
            ClickHouseError: it does not answer in time.
        """
        if self._waiting >= _MAX_WAITING:
            raise ClickHouseError("too many look-ups wait for ClickHouse", None)
        self._waiting += 1
        try:
            rows = await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(
                    self._threads, self._client.rows, _QUERY, {"type": type_, "id": id_}
                ),
                self._timeout_s,
            )
        except TimeoutError:
            raise ClickHouseError("no answer from ClickHouse in time", None) from None
        finally:
            self._waiting -= 1
        if not rows:
            return None
        attributes, version, updated_at = rows[0]
        return {
            "type": type_,
            "id": id_,
            "attributes": msgspec.Raw(attributes.encode()),
            "version": version,
            "updated_at": _iso(updated_at),
        }

    def close(self) -> None:
        """Close the connections; look-ups under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
