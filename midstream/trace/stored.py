"""What ClickHouse knows of mids. Blocks; every query finds its rows by an index, however much is stored.

Arrivals are found by the hash of their mid, through the projections by hash; what these lack, by hash and receipt;
batches by their primary key. Hashes and times are numbers, so that no mid, however long, makes a query long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from midstream.trace.arrivals import ArrivalKey, BatchFacts, Evidence, Reject, Sighting, Stored
from processors.store.route import EVENT_TABLES

Rows = Callable[[str, dict[str, Any] | None], Sequence[tuple[Any, ...]]]
"""Runs a query; raises ClickHouseError."""

Mids = Mapping[str, int]
"""Mids with their hashes."""

LOOK_UP_THREADS = 1
"""Of the server, for a query: each reads some granules, and with two threads took a third longer."""

MAX_ARRIVALS = 1_000
"""Arrivals of one mid that are listed."""
_MAX_ARRIVALS_IN_ALL = 20_000
_CHUNK = 1_000
_MAX_MID_CHARS = 8_000  # a server takes 128 KiB in one parameter, and a character may take twelve bytes there

# Two of one shape each, so that one query asks for both: which, mid, the arrival, then what only this kind has.
_ARRIVAL = "mid, batch_id, toInt64(event_index), toUnixTimestamp64Milli(received_at)"
_FEWER = """WHERE mid_hash IN ({hashes}) {which}
ORDER BY mid_hash, received_at, batch_id, event_index LIMIT {limit} BY mid_hash"""
# Batches are looked up by their receipt, their primary key. What is not in there yet may be anybody's.
_NOT_OF_OTHERS = """AND batch_id GLOBAL NOT IN (
SELECT batch_id FROM batch_rows WHERE credential != {{credential:String}}
AND received_at GLOBAL IN (SELECT received_at FROM {table} WHERE mid_hash IN ({hashes})))"""
_EVENTS = "SELECT '{table}', {arrival} FROM {table} WHERE mid_hash IN ({hashes})"
_DUPLICATES = """SELECT 'duplicate', {arrival}, first_batch_id, toString(differs), '', toInt64(first_event_index),
toUnixTimestamp64Milli(first_received_at) FROM duplicate_rows"""
_REJECTS = """SELECT 'reject', {arrival}, code, pointer, message, toInt64(0), toUnixTimestamp64Milli(stored_at)
FROM reject_rows"""
_BATCHES = "SELECT batch_id, source, msgid, did, credential, topic, partition, offset FROM batches"
_BLOCKS = """SELECT toUnixTimestamp64Milli(stored_at), partition, partitions, toUnixTimestamp64Milli(max(visible_at))
FROM block_rows"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Where the event of a mid is."""

    table: str
    sighting: Sighting


@dataclass(frozen=True, slots=True)
class Details:
    """What only the event's own row says."""

    stored_at_ms: int
    raw: str | None


@dataclass(frozen=True, slots=True)
class Others:
    """Arrivals that became no event."""

    sightings: dict[str, list[Sighting]]
    """By mid; of each duplicate the arrival that stored its mid too."""
    cut_off: frozenset[str]
    """Mids that have more of these."""


class StoredTraces:
    """Queries for the tracer. Threads may share it."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def events(self, mids: Mids) -> dict[str, StoredEvent]:
        """Return where the events of these mids are, by mid."""
        events: dict[str, StoredEvent] = {}
        for chunk in _chunks(mids.values()):
            hashes = _numbers(chunk)
            selects = [_EVENTS.format(table=table, arrival=_ARRIVAL, hashes=hashes) for table in EVENT_TABLES]
            for table, mid, *arrival in self._ask(selects):
                if mid in mids:  # the whole mid, not its hash
                    events[mid] = StoredEvent(table, Sighting(Evidence.EVENT, *arrival))
        return events

    def others(self, mids: Mids, credential: str | None = None) -> Others:
        """Return all other arrivals of these mids that have become anything.

        With a ``credential``, arrivals known to be another's are left out of a mid that has more than are listed.
        """
        found = self._others(mids, None)
        if credential is None or not found.cut_off:
            return found
        fewer = self._others({mid: mids[mid] for mid in found.cut_off}, credential)
        # Who stored the mid is not lost with another's duplicate, which names it.
        named = {
            mid: [one for one in found.sightings[mid] if one.evidence is Evidence.NAMED_BY_DUPLICATE]
            for mid in found.cut_off
        }
        return Others(
            found.sightings | {mid: named[mid] + fewer.sightings.get(mid, []) for mid in named}, fewer.cut_off
        )

    def _others(self, mids: Mids, credential: str | None) -> Others:
        limit = max(min(MAX_ARRIVALS, _MAX_ARRIVALS_IN_ALL // max(len(mids), 1)), 1)
        sightings: dict[str, list[Sighting]] = {}
        listed: set[tuple[str, Evidence, ArrivalKey]] = set()
        counts: Counter[tuple[str, Evidence]] = Counter()
        parameters = None if credential is None else {"credential": credential}
        for chunk in _chunks(mids.values()):
            hashes = _numbers(chunk)
            selects = []
            for select, table in ((_DUPLICATES, "duplicate_rows"), (_REJECTS, "reject_rows")):
                which = "" if credential is None else _NOT_OF_OTHERS.format(table=table, hashes=hashes)
                # No FINAL, which would read no projection: repeated rows are the same arrival all the same.
                fewer = _FEWER.format(hashes=hashes, which=which, limit=limit + 1)
                selects.append(f"{select.format(arrival=_ARRIVAL)} {fewer}")
            for kind, mid, *row in self._ask(selects, parameters):
                if mid not in mids:  # the whole mid, not its hash
                    continue
                evidence = Evidence(kind)
                seen = _read_duplicate(*row) if evidence is Evidence.DUPLICATE else _read_reject(*row)
                arrival = mid, evidence, seen[0].key
                if arrival not in listed:
                    listed.add(arrival)
                    counts[mid, evidence] += 1
                if counts[mid, evidence] <= limit:
                    sightings.setdefault(mid, []).extend(seen)
        return Others(sightings, frozenset(mid for (mid, _), count in counts.items() if count > limit))

    def details(self, events: Mapping[str, StoredEvent], mids: Mids, *, with_raw: bool) -> dict[str, Details]:
        """Return details of stored events by mid. ``with_raw`` reads their texts: for a few of them."""
        found: dict[str, Details] = {}
        for table in EVENT_TABLES:
            here = [mid for mid, event in events.items() if event.table == table]
            for chunk in _chunks(here):
                times = {events[mid].sighting.received_at_ms for mid in chunk}
                sql = (
                    f"SELECT mid, toUnixTimestamp64Milli(stored_at), {'raw' if with_raw else 'NULL'} FROM {table} "  # noqa: S608  numbers and our own tables
                    f"WHERE mid_hash IN ({_numbers(mids[mid] for mid in chunk)}) AND received_at IN ({_times(times)})"
                )
                parameters = None
                if len(chunk) == 1 and len(chunk[0]) <= _MAX_MID_CHARS:
                    sql += " AND mid = {mid:String}"  # the index on the mid leaves one granule to read
                    parameters = {"mid": chunk[0]}
                for mid, stored_at_ms, raw in self._rows(sql, parameters):
                    if mid in events:
                        found[mid] = Details(stored_at_ms, raw)
        return found

    def batches(self, wanted: Mapping[str, int]) -> dict[str, BatchFacts]:
        """Return facts of batches, given with their receipt in epoch milliseconds, as far as they are there."""
        found: dict[str, BatchFacts] = {}
        for chunk in _chunks(wanted):
            sql = f"{_BATCHES} WHERE received_at IN ({_times({wanted[one] for one in chunk})})"
            parameters: dict[str, Any] | None = None
            if len(chunk) == 1:
                sql, parameters = f"{sql} AND batch_id = {{batch_id:String}}", {"batch_id": chunk[0]}
            for batch_id, *facts in self._rows(sql, parameters):
                if batch_id in wanted:
                    found[batch_id] = BatchFacts(*facts)
        return found

    def visible(self, stored: Mapping[str, Stored], mids: Mids) -> dict[str, int]:
        """Return when events became visible, epoch milliseconds by mid, as far as a worker lived to write it."""
        by_moment: dict[int, list[tuple[int, int, int]]] = {}
        for chunk in _chunks({one.stored_at_ms for one in stored.values()}):
            sql = f"{_BLOCKS} WHERE stored_at IN ({_times(chunk)}) GROUP BY stored_at, partition, partitions"
            for stored_at_ms, partition, partitions, visible_at_ms in self._rows(sql, None):
                by_moment.setdefault(stored_at_ms, []).append((partition, partitions, visible_at_ms))
        found = {}
        for mid, one in stored.items():
            blocks = by_moment.get(one.stored_at_ms, [])
            moments = [at_ms for partition, partitions, at_ms in blocks if mids[mid] % partitions == partition]
            if moments:
                found[mid] = max(moments)
        return found

    def _ask(self, selects: Sequence[str], parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        return self._rows(" UNION ALL ".join(f"({select})" for select in selects), parameters)


def _read_duplicate(
    batch_id: str, index: int, at_ms: int, first_batch_id: str, differs: str, _: str, first_index: int, first_at_ms: int
) -> list[Sighting]:
    return [
        Sighting(Evidence.DUPLICATE, batch_id, index, at_ms, differs=differs == "true"),
        Sighting(Evidence.NAMED_BY_DUPLICATE, first_batch_id, first_index, first_at_ms),
    ]


def _read_reject(
    batch_id: str, index: int, at_ms: int, code: str, pointer: str, message: str, _: int, written_at_ms: int
) -> list[Sighting]:
    return [Sighting(Evidence.REJECT, batch_id, index, at_ms, reject=Reject(written_at_ms, code, pointer, message))]


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _numbers(values: Iterable[int]) -> str:
    return ",".join(str(int(value)) for value in values)


def _times(values: Iterable[int]) -> str:
    return ",".join(f"fromUnixTimestamp64Milli({int(value)}, 'UTC')" for value in sorted(values))
