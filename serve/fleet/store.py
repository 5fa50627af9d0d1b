"""What is stored of devices' reports, as the routes ask for it. The calls block: they run in threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, Protocol, TypeVar

from midstream.clickhouse.client import ClickHouseError
from midstream.devices.report import Value
from midstream.devices.stored import (
    Rows,
    read_history,
    read_state,
    read_states,
    read_statuses,
    read_stored_since,
)
from midstream.logs import get_logger
from midstream.settings import Settings
from serve.calls import CallError, Calls
from serve.errors import ApiError

P = ParamSpec("P")
T = TypeVar("T")

_log = get_logger(__name__)

_THREADS = 4


class Entry(Protocol):
    """What a device's state says of a key."""

    @property
    def value(self) -> Value:
        """As it was sent."""

    @property
    def at_us(self) -> int:
        """The effective time of the report that said it."""

    @property
    def received_at_us(self) -> int:
        """When it was received first."""


class DeviceStore(Protocol):
    """Device states and their history. Every call may raise ClickHouseError."""

    def state(self, device_id: str, at_us: int | None = None) -> Mapping[str, Entry]:
        """Return a device's state by key; that of a moment, or the current one. Empty when there is none."""

    def states(self, device_ids: Sequence[str]) -> Mapping[str, Mapping[str, Entry]]:
        """Return the current state of each of these devices that has one."""

    def stored_since(self, since_ms: int) -> Mapping[str, int]:
        """Return the devices of which something was stored after a moment, and when the latest; see
        :func:`midstream.devices.stored.read_stored_since`."""

    def statuses(self, device_ids: Sequence[str]) -> Mapping[str, Entry]:
        """Return the entry of the key ``status`` of each of these devices that has one."""

    def history(self, device_id: str, key: str, from_us: int, to_us: int) -> Sequence[tuple[int, Value | None]]:
        """Return the values of a key from one moment to before another, by time, None where it was removed: each below
        1,000 of them, so many that stand for all of them above."""


class ClickHouseStore:
    """The store of a running pipeline."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def state(self, device_id: str, at_us: int | None = None) -> Mapping[str, Entry]:
        """See :class:`DeviceStore`."""
        return read_state(self._rows, device_id, at_us)

    def states(self, device_ids: Sequence[str]) -> Mapping[str, Mapping[str, Entry]]:
        """See :class:`DeviceStore`."""
        return read_states(self._rows, device_ids)

    def stored_since(self, since_ms: int) -> Mapping[str, int]:
        """See :class:`DeviceStore`."""
        return read_stored_since(self._rows, since_ms)

    def statuses(self, device_ids: Sequence[str]) -> Mapping[str, Entry]:
        """See :class:`DeviceStore`."""
        return read_statuses(self._rows, device_ids)

    def history(self, device_id: str, key: str, from_us: int, to_us: int) -> Sequence[tuple[int, Value | None]]:
        """See :class:`DeviceStore`."""
        return [(point.at_us, point.value) for point in read_history(self._rows, device_id, key, from_us, to_us - 1)]


class StoreCalls:
    """Asks the store, in threads. Belongs to one event loop."""

    def __init__(self, settings: Settings, store: DeviceStore) -> None:
        self._calls = Calls("devices", threads=_THREADS, timeout_s=settings.clickhouse_timeout_ms / 1000)
        self._store = store

    def close(self) -> None:
        """End the threads."""
        self._calls.close()

    async def run(self, ask: Callable[[DeviceStore], T]) -> T:
        """Return what the store answers.

        Raises:
            ApiError: 503, it does not answer now.
        """
        try:
            return await self._calls.run(ask, self._store)
        except (ClickHouseError, CallError) as error:
            _log.warning("clickhouse.unavailable", error=str(error))
            raise ApiError(503, "CLICKHOUSE_UNAVAILABLE", "ClickHouse does not answer now; try again") from None
