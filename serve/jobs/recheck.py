"""Erased users stay erased when a backup is restored that still has them, or one that has forgotten of them.

When the process starts, and once a day: workers are told again of the digests that ClickHouse does not have, and the
users who are stored under their own ids are erased again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import orjson

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import DimensionType, now_ms
from midstream.erased import erased_row
from midstream.kafka.dimension_publisher import PublishError
from midstream.logs import get_logger
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.sync.errors import TooManyJobsError
from midstream.registry.sync.jobs import Jobs, Order

if TYPE_CHECKING:  # it brings the whole api, which this process spares
    from serve.services import PublishesDimensions

_log = get_logger(__name__)

_DIGESTS = "SELECT DISTINCT id FROM dimension_rows WHERE type = 'erased'"
_IDS = """
SELECT DISTINCT id FROM
(
    SELECT actor_id AS id FROM events WHERE actor_type = 'User'
    UNION ALL
    SELECT id FROM dimension_rows WHERE type = 'user'
    UNION ALL
    SELECT toString(user_id) FROM assignment_rows
)
"""
_ASK_IDS = 5_000
_HOUR_MS = 3_600_000
_MAX_AGAIN = 1_000
"""Erasures of one look; the rest is found by the next."""


class Erased(Protocol):
    """See :class:`midstream.registry.sync.erasures.Erasures`. Blocks; both may raise RegistryUnavailable."""

    def digests(self, type_: str) -> set[str]:
        """Return the digests of all erased objects of a type."""

    def among(self, type_: str, ids: Sequence[str]) -> set[str]:
        """Return those of some ids that were erased."""


class Recheck:
    """Belongs to one event loop."""

    def __init__(
        self,
        erased: Erased,
        jobs: Jobs,
        publisher: PublishesDimensions,
        lines: Callable[[str], Iterable[bytes]],
    ) -> None:
        """
        Args:
            erased: knows who was erased.
            jobs: take erasures.
            publisher: tells workers.
            lines: gives a query's answer as lines, in pieces of any size; a line is a JSON array with an id.
        """
        self._erased = erased
        self._jobs = jobs
        self._publisher = publisher
        self._lines = lines

    async def look(self) -> bool:
        """Look once; return whether all that is needed answered."""
        try:
            digests = await asyncio.to_thread(self._erased.digests, DimensionType.USER)
            if not digests:
                return True
            known = await asyncio.to_thread(lambda: {id_ for ids in self._read(_DIGESTS) for id_ in ids})
            for digest in sorted(digests - known):
                await self._publisher.publish(erased_row(digest, now_ms()))
            again = await asyncio.to_thread(self._find)
            for id_ in again:
                await asyncio.to_thread(self._erase_again, id_)
        except (RegistryUnavailable, ClickHouseError, PublishError, TooManyJobsError) as error:
            _log.warning("erased.unchecked", error=str(error)[:500])
            return False
        if digests - known or again:
            _log.warning("erased.found_again", told=len(digests - known), users=len(again))
        return True

    def _erase_again(self, id_: str) -> None:
        order = Order("erase", DimensionType.USER, (id_,))
        # Names by which another process that looks now asks for the same job. One that has ended knew nothing of what
        # was found now.
        name = f"found again: {now_ms() // _HOUR_MS}"
        for number in range(_MAX_AGAIN):
            job, _ = self._jobs.create(order, "", f"{name}, {number}")
            if not job.is_ended:
                return

    def _find(self) -> list[str]:
        found: list[str] = []
        for ids in self._read(_IDS):
            found += self._erased.among(DimensionType.USER, ids)
            if len(found) >= _MAX_AGAIN:
                break
        return sorted(found)[:_MAX_AGAIN]

    def _read(self, sql: str) -> Iterator[list[str]]:
        """Yield the ids of an answer, some at a time."""
        rest = b""
        ids: list[str] = []
        for piece in self._lines(sql):
            *lines, rest = (rest + piece).split(b"\n")
            ids += [orjson.loads(line)[0] for line in lines if line]
            while len(ids) >= _ASK_IDS:
                yield ids[:_ASK_IDS]
                ids = ids[_ASK_IDS:]
        if ids:
            yield ids
