"""Records as the routes ask for them: writes and reads of one moment go to ClickHouse together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from midstream.assignments.record import Version
from midstream.assignments.rows import RecordKey, Write
from midstream.assignments.stored import RecordReader, Rows
from midstream.clickhouse.client import ClickHouseError
from midstream.logs import get_logger
from midstream.metrics import ASSIGNMENTS_WAITING
from midstream.settings import MIB, Settings
from serve.assignments.commit import Committer, Outcome
from serve.calls import CallError, Calls
from serve.errors import ApiError
from serve.gather import Bounds, Gather

T = TypeVar("T")

_log = get_logger(__name__)

_APART_S = 0.04
"""Longest wait of a write for others to go with it: each insert costs ClickHouse as much as dozens of rows."""
_READS_APART_S = 0.01


class AssignmentStore:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, committer: Committer, reader: RecordReader, rows: Rows) -> None:
        timeout_s = settings.clickhouse_timeout_ms / 1000
        self._reader = reader
        self._rows = rows
        self._writes: Gather[Write, Outcome] = Gather(
            "assignment-writes",
            committer.commit,
            Bounds(
                together=200,
                together_bytes=8 * MIB,
                waiting=2_000,
                waiting_bytes=64 * MIB,
                calls=4,
                apart_s=_APART_S,
                timeout_s=timeout_s,
            ),
            ASSIGNMENTS_WAITING.labels("write"),
        )
        self._reads: Gather[RecordKey, Sequence[Version]] = Gather(
            "assignment-reads",
            self._read,
            Bounds(
                together=50,
                together_bytes=MIB,
                waiting=1_000,
                waiting_bytes=MIB,
                calls=2,
                apart_s=_READS_APART_S,
                timeout_s=timeout_s,
            ),
            ASSIGNMENTS_WAITING.labels("read"),
        )
        self._calls = Calls("assignments", threads=2, timeout_s=timeout_s)

    def close(self) -> None:
        """End the threads; calls under way are not waited for."""
        for part in (self._writes, self._reads, self._calls):
            part.close()

    async def write(self, write: Write) -> Outcome:
        """Store a write.

        Raises:
            ApiError: 503, nothing is known of the outcome.
            RegistryUnavailable: likewise.
        """
        return await _or_away(self._writes.run(write, write.size_bytes))

    async def read(self, key: RecordKey) -> Sequence[Version]:
        """Return the writes that a record is made of; none when it has none.

        Raises:
            ApiError: 503.
        """
        return await _or_away(self._reads.run(key))

    async def ask(self, question: Callable[[Rows], T]) -> T:
        """Return what ClickHouse answers.

        Raises:
            ApiError: 503.
        """
        return await _or_away(self._calls.run(question, self._rows))

    def _read(self, keys: Sequence[RecordKey]) -> list[Sequence[Version]]:
        found = self._reader.read(set(keys))
        return [found.get(key, ()) for key in keys]


async def _or_away(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except (ClickHouseError, CallError) as error:
        _log.warning("clickhouse.unavailable", error=str(error))
        raise ApiError(503, "CLICKHOUSE_UNAVAILABLE", "ClickHouse does not answer now; try again") from None
