"""Which days are closed, and which are gone: what the accounting in ClickHouse says."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from midstream.clickhouse.client import ClickHouseError
from midstream.exhaust.period import bounds_ms
from midstream.settings import Settings
from serve.calls import CallError, Calls
from serve.finder import LazyClient

_THREADS = 2
# A clock that was ahead may have moved `complete_until` too far: no collector may still give out an earlier receipt.
_QUERY = """\
SELECT
    least(
        toUnixTimestamp64Milli(ifNull((SELECT complete_until FROM complete_until), toDateTime64(0, 3, 'UTC'))),
        ifNull((SELECT toUnixTimestamp64Milli(min(low)) FROM collectors WHERE open HAVING count()), 9223372036854775807)
    ),
    toUnixTimestamp64Milli(ifNull((SELECT owed_from FROM retention), toDateTime64(0, 3, 'UTC')))
"""


class NotClosedError(Exception):
    """Something that was received on a day may still be in flight."""

    def __init__(self, day: date) -> None:
        super().__init__(f"the day {day} is not closed yet: something received in it may still be in flight")


class GoneError(Exception):
    """Some of a day's events have been deleted by their retention."""

    def __init__(self, day: date) -> None:
        super().__init__(f"the day {day} is past the retention of the events")


class ClosedDays:
    """Asks ClickHouse, in threads of its own. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._client = LazyClient(settings)
        self._calls = Calls("closed-days", threads=_THREADS, timeout_s=settings.clickhouse_timeout_ms / 1000)

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()
        self._client.close()

    async def check(self, days: Iterable[date]) -> None:
        """Return if the events of all days are stored, and none of them deleted.

        Raises:
            NotClosedError: some may be in flight.
            GoneError: some may be deleted.
            ClickHouseError: it does not answer.
        """
        try:
            ((complete_ms, owed_ms),) = await self._calls.run(self._client.rows, _QUERY)
        except CallError as error:
            raise ClickHouseError(str(error), None) from None
        for day in days:
            begin_ms, end_ms = bounds_ms(day)
            if begin_ms < owed_ms:
                raise GoneError(day)
            if complete_ms < end_ms:
                raise NotClosedError(day)
