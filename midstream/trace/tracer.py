"""Tracing mids: what is on its way first, ClickHouse last, then the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from midstream.clickhouse.client import ClickHouseError
from midstream.events.judge import Judge
from midstream.metrics import TRACE_SECONDS, TRACES, TRACES_WAITING
from midstream.settings import Settings
from midstream.trace.arrivals import BatchFacts, Evidence, Sighting, Stored, Trace, judge
from midstream.trace.backlog import BacklogSearch, Seen
from midstream.trace.elsewhere import Elsewhere
from midstream.trace.needles import is_searchable
from midstream.trace.stored import Mids, Rows, StoredEvent, StoredTraces
from processors.validate.split import hash_mid

_MAX_RUNNING = 4
_MAX_WAITING = 32
_THREADS = 2 * _MAX_RUNNING

T = TypeVar("T")
Events = Awaitable[dict[str, StoredEvent]]


class TracerBusyError(Exception):
    """As many traces wait as may."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    sightings: dict[str, list[Sighting]]
    cut_off: frozenset[str]
    late_events: dict[str, StoredEvent]
    batches: dict[str, BatchFacts]


class Tracer:
    """Traces mids for one process. Belongs to one event loop; connects to Kafka when it is first needed."""

    def __init__(self, settings: Settings, judge_events: Judge, rows: Rows) -> None:
        self._backlog = BacklogSearch(settings, judge_events)
        self._stored = StoredTraces(rows)
        self._elsewhere = Elsewhere(rows, settings.spool_folder)
        self._timeout_s = settings.clickhouse_timeout_ms / 1000
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="trace")
        self._running = asyncio.Semaphore(_MAX_RUNNING)
        self._waiting = 0

    async def close(self) -> None:
        """Close the connections to Kafka; queries under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._backlog.close()

    async def trace(
        self, mids: Sequence[str], *, with_event: bool = False, credential: str | None = None
    ) -> list[Trace]:
        """Return the trace of each mid, in order. ``with_event`` adds the stored events' text: for a few mids.

        ``credential`` is that of an app which asks: where not all arrivals are listed, its own come before others'. It
        may see what :func:`midstream.trace.arrivals.seen_by` leaves.

        Raises:
            ClickHouseError: ClickHouse does not answer; without Kafka an answer is only not complete.
            TracerBusyError: too many wait already.
        """
        if self._waiting >= _MAX_WAITING:
            raise TracerBusyError
        self._waiting += 1
        TRACES_WAITING.inc()
        try:
            async with self._running:
                with TRACE_SECONDS.time():
                    hashes = {mid: hash_mid(mid) for mid in mids if is_searchable(mid)}
                    traces = await self._trace(hashes, with_event, credential)
        finally:
            self._waiting -= 1
            TRACES_WAITING.dec()
        # What no event can have as its mid was never seen.
        result = [traces[mid] if mid in traces else judge(mid, ()) for mid in mids]
        for trace in result:
            TRACES.labels(trace.verdict.value).inc()
        return result

    async def _trace(self, mids: dict[str, int], with_event: bool, credential: str | None) -> dict[str, Trace]:
        if not mids:
            return {}
        may_be_elsewhere = await self._ask(self._elsewhere.may_hold)
        seen = await self._backlog.search(mids)
        # Two ways that meet at the end, so that ClickHouse works on two queries at once.
        events = asyncio.ensure_future(self._ask(self._stored.events, mids))
        details, arrived = await asyncio.gather(
            self._details(events, mids, with_event), self._arrivals(events, mids, credential, seen)
        )
        if arrived.late_events:
            details |= await self._details_of(arrived.late_events, mids, with_event)
        return {
            mid: judge(
                mid,
                arrived.sightings[mid],
                stored=details[mid][0] if mid in details else None,
                batches=arrived.batches,
                complete=seen.complete and not may_be_elsewhere,
                more_arrivals=mid in arrived.cut_off,
                event=details[mid][1] if mid in details else None,
            )
            for mid in mids
        }

    async def _arrivals(self, events: Events, mids: dict[str, int], credential: str | None, seen: Seen) -> _Arrived:
        others, stored = await asyncio.gather(self._ask(self._stored.others, mids, credential), events)
        named = {mid: mids[mid] for mid, its in others.sightings.items() if mid not in stored and _is_named(its)}
        # Stored just now, or deleted by retention.
        late_events = await self._ask(self._stored.events, named) if named else {}
        sightings: dict[str, list[Sighting]] = {
            mid: [
                *seen.sightings.get(mid, ()),
                *others.sightings.get(mid, ()),
                *(of[mid].sighting for of in (stored, late_events) if mid in of),
            ]
            for mid in mids
        }
        return _Arrived(sightings, others.cut_off, late_events, await self._batches(sightings, seen))

    async def _batches(self, sightings: dict[str, list[Sighting]], seen: Seen) -> dict[str, BatchFacts]:
        arrivals = [sighting for of_mid in sightings.values() for sighting in of_mid]
        wanted = {sighting.batch_id: sighting.received_at_ms for sighting in arrivals}
        if not wanted:
            return {}
        found: dict[str, BatchFacts] = await self._ask(self._stored.batches, wanted)
        told = {sighting.batch_id for sighting in arrivals if sighting.facts is not None}
        missing = wanted.keys() - found.keys() - told
        if missing and seen.receipts:
            found = {**await self._backlog.batches(missing, seen), **found}
        return found

    async def _details(self, events: Events, mids: Mids, with_event: bool) -> dict[str, tuple[Stored, str | None]]:
        return await self._details_of(await events, mids, with_event)

    async def _details_of(
        self, events: Mapping[str, StoredEvent], mids: Mids, with_event: bool
    ) -> dict[str, tuple[Stored, str | None]]:
        """Return where and since when events are stored, and their texts."""
        if not events:
            return {}
        details = await self._ask(lambda: self._stored.details(events, mids, with_raw=with_event))
        stored = {mid: Stored(events[mid].table, one.stored_at_ms) for mid, one in details.items()}
        visible = await self._ask(self._stored.visible, stored, mids) if stored else {}
        return {mid: (replace(one, visible_at_ms=visible.get(mid)), details[mid].raw) for mid, one in stored.items()}

    async def _ask(self, query: Callable[..., T], *arguments: object) -> T:
        asking = asyncio.get_running_loop().run_in_executor(self._threads, query, *arguments)
        try:
            return await asyncio.wait_for(asking, self._timeout_s)
        except TimeoutError:
            raise ClickHouseError("no answer from ClickHouse in time", None) from None


def _is_named(sightings: Iterable[Sighting]) -> bool:
    """Whether a duplicate names the event."""
    return any(one.evidence is Evidence.NAMED_BY_DUPLICATE for one in sightings)
