"""What an audit asks of ClickHouse. The comparing is done there; only sums and what does not agree come back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from midstream.audit.findings import HOUR_MS, Counts, slices
from midstream.clickhouse.client import ClickHouse
from processors.validate.split import hash_mid

_HASHES = 1 << 64
_ROWS_A_BUCKET = 2_000_000
_LEAST_RANGES = 100
"""ClickHouse compares granules, not rows (ClickHouse/ClickHouse#103161): with a 64th and more of all hashes asked for,
the small granules of the projection seem to be more than those of the table, and all of that is read for each range."""
_CHUNK = 1_000
_WRONG_BATCHES = 1_000
_PLACES = 1_000
_CHUNK_OFFSETS = 65_536

_TABLES = ("batch_rows", "learning_events", "operational_events", "duplicate_rows", "reject_rows")
_WITHIN = "received_at >= fromUnixTimestamp64Milli({from:Int64}) AND received_at < fromUnixTimestamp64Milli({to:Int64})"

# As the view `accounting` counts, but batch by batch, and without waiting for anything: all of them are through.
_BATCHES = f"""
SELECT
    batch_id,
    max(is_batch) AS is_known,
    max(batch_events) AS events,
    max(body_events) AS body,
    groupBitmapStateIf(place, outcome = 1) AS stored_places,
    groupBitmapStateIf(place, outcome = 2) AS duplicate_places,
    groupBitmapStateIf(place, outcome = 3) AS rejected_places,
    bitmapOr(stored_places, duplicate_places) AS kept_places,
    bitmapOr(kept_places, rejected_places) AS all_places,
    bitmapCardinality(bitmapSubsetInRange(all_places, toUInt32(0), events)) AS within,
    least(events - within, body) AS rejected_whole,
    events - within - rejected_whole AS missing,
    bitmapCardinality(all_places) - within AS surplus,
    countIf(outcome = 1) - bitmapCardinality(stored_places) AS doubled
FROM
(
    SELECT batch_id, toUInt32(0) AS place, 0 AS outcome, events AS batch_events, 1 AS is_batch,
        toUInt32(0) AS body_events
    FROM batch_rows WHERE {_WITHIN}
    UNION ALL
    SELECT batch_id, event_index, 1, 0, 0, 0 FROM events WHERE {_WITHIN}
    UNION ALL
    SELECT batch_id, event_index, 2, 0, 0, 0 FROM duplicate_rows WHERE {_WITHIN}
    UNION ALL
    SELECT batch_id, toUInt32(greatest(event_index, 0)), if(event_index < 0, 4, 3), 0, 0, if(event_index < 0, events, 0)
    FROM rejects WHERE {_WITHIN}
)
GROUP BY batch_id
"""  # noqa: S608 - constants

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WrongBatch:
    """A batch whose arrivals are not what its receipt says. Places are indices in ``events``, the first ones."""

    batch_id: str
    is_known: bool
    missing: int
    surplus: int
    doubled: int
    missing_places: list[int]
    surplus_places: list[int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch lies in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of offsets."""

    start: Place
    count: int


@dataclass(frozen=True, slots=True)
class DoubledMid:
    """A mid that more than one row has."""

    mid: str
    rows: int
    arrivals: list[tuple[str, int]]
    """Batch and index, the first ones."""
    first_ms: int
    """Receipt of one of them, epoch milliseconds."""


class AuditStore:
    """Reads ClickHouse; every call raises ClickHouseError when it does not answer."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    def bounds(self) -> tuple[int, int]:
        """Return the receipt of the newest batch, and ``complete_until``; epoch milliseconds, 0 where there is none."""
        ((newest, complete),) = self._clickhouse.rows(
            "SELECT toUnixTimestamp64Milli(max(received_at)), "
            "(SELECT toUnixTimestamp64Milli(complete_until) FROM complete_until) FROM batch_rows"
        )
        return int(newest), int(complete)

    def oldest_row(self) -> int:
        """Return the oldest receipt of any batch or arrival, epoch milliseconds; 0: there is none."""
        rows = self._clickhouse.rows(
            " UNION ALL ".join(f"SELECT toUnixTimestamp64Milli(min(received_at)) FROM {table}" for table in _TABLES)  # noqa: S608 - constants
        )
        return min((int(oldest) for (oldest,) in rows if oldest), default=0)

    def owed_from(self) -> int:
        """Return the moment before which retention may have deleted events, epoch milliseconds."""
        return int(self._clickhouse.rows("SELECT toUnixTimestamp64Milli(owed_from) FROM retention")[0][0])

    def in_flight(self, from_ms: int, to_ms: int) -> tuple[int, int]:
        """Return how many batches were received in a time, and how many events are in them."""
        ((batches, events),) = self._clickhouse.rows(
            f"SELECT count(), sum(events) FROM batches WHERE {_WITHIN}",  # noqa: S608 - a constant
            {"from": from_ms, "to": to_ms},
        )
        return int(batches), int(events)

    def rows_by_hour(self, from_ms: int, to_ms: int) -> dict[int, int]:
        """Return how many batches and arrivals of a time there are, by hour since the epoch, ascending; no zeros."""
        tables = " UNION ALL ".join(
            f"SELECT intDiv(toUnixTimestamp64Milli(received_at), {HOUR_MS}) AS hour FROM {table} WHERE {_WITHIN}"  # noqa: S608 - constants
            for table in _TABLES
        )
        rows = self._clickhouse.rows(
            f"SELECT hour, count() FROM ({tables}) GROUP BY hour ORDER BY hour",  # noqa: S608 - constants
            {"from": from_ms, "to": to_ms},
        )
        return {int(hour): int(count) for hour, count in rows}

    def compare(self, from_ms: int, to_ms: int) -> tuple[Counts, list[WrongBatch]]:
        """Compare all batches of a time with their arrivals; return the sums, and the first batches that are wrong."""
        row = self._clickhouse.rows(
            "SELECT countIf(is_known), sum(events), sum(bitmapCardinality(stored_places)), "  # noqa: S608 - constants
            "sum(bitmapAndnotCardinality(duplicate_places, stored_places)), "
            "sum(bitmapAndnotCardinality(rejected_places, kept_places) + rejected_whole), "
            "sum(missing), sum(surplus), sum(doubled), "
            f"groupArrayIf({_WRONG_BATCHES})((batch_id, is_known, missing, surplus, doubled, "
            f"if(missing > 0, arraySlice(arrayFilter(place -> NOT bitmapContains(all_places, place), range(events)), "
            f"1, {_PLACES}), []), "
            f"if(surplus > 0, bitmapToArray(bitmapSubsetLimit(all_places, events, {_PLACES})), [])), "
            f"missing > 0 OR surplus > 0 OR doubled > 0) FROM ({_BATCHES})",
            {"from": from_ms, "to": to_ms},
        )[0]
        numbers = [int(number) for number in row[:8]]
        batches, received, stored, duplicate, rejected, missing, surplus, doubled = numbers
        counts = Counts(batches, received, stored, duplicate, rejected, 0, missing, surplus, doubled)
        wrong = [
            WrongBatch(batch_id, bool(known), int(lost), int(more), int(twice), list(lost_places), list(more_places))
            for batch_id, known, lost, more, twice, lost_places, more_places in row[8]
        ]
        return counts, wrong

    def places(self, batch_ids: list[str], from_ms: int, to_ms: int) -> dict[str, Place]:
        """Return where batches of a time lie in Kafka."""
        found: dict[str, Place] = {}
        for chunk in _chunks(batch_ids):
            rows = self._clickhouse.rows(
                "SELECT batch_id, topic, partition, offset FROM batches "  # noqa: S608 - a constant
                f"WHERE {_WITHIN} AND batch_id IN {{ids:Array(String)}}",
                {"ids": chunk, "from": from_ms, "to": to_ms},
            )
            found |= {row[0]: Place(row[1], int(row[2]), int(row[3])) for row in rows}
        return found

    def known(self, received_ms: Mapping[str, int]) -> set[str]:
        """Return those batches that are in ``batches``, of some given with their receipt, epoch milliseconds."""
        found: set[str] = set()
        for chunk in _chunks(sorted(received_ms, key=received_ms.__getitem__)):
            rows = self._clickhouse.rows(
                "SELECT DISTINCT batch_id FROM batch_rows "  # noqa: S608 - a constant
                f"WHERE {_WITHIN} AND batch_id IN {{ids:Array(String)}}",
                {"ids": chunk, "from": received_ms[chunk[0]], "to": received_ms[chunk[-1]] + 1},
            )
            found |= {row[0] for row in rows}
        # Two copies of a batch may have different receipts: one that is too far from when Kafka took it is not kept.
        for chunk in _chunks([batch_id for batch_id in received_ms if batch_id not in found]):
            rows = self._clickhouse.rows(
                "SELECT DISTINCT batch_id FROM batch_rows WHERE batch_id IN {ids:Array(String)}", {"ids": chunk}
            )
            found |= {row[0] for row in rows}
        return found

    def mids_of(self, batch_id: str, from_ms: int, to_ms: int, places: list[int]) -> list[tuple[int, str, str]]:
        """Return index, mid and outcome of these arrivals of a batch."""
        rows = self._clickhouse.rows(
            "SELECT event_index, mid, outcome FROM ("  # noqa: S608 - constants
            f"SELECT event_index, mid, 'stored' AS outcome, received_at, batch_id FROM events WHERE {_WITHIN} "
            "UNION ALL "
            f"SELECT event_index, mid, 'duplicate', received_at, batch_id FROM duplicates WHERE {_WITHIN} UNION ALL "
            f"SELECT toUInt32(event_index), mid, 'rejected', received_at, batch_id FROM rejects WHERE {_WITHIN} "
            "AND event_index >= 0) WHERE batch_id = {batch:String} AND event_index IN {places:Array(UInt32)} "
            "ORDER BY event_index, outcome",
            {"from": from_ms, "to": to_ms, "batch": batch_id, "places": places},
        )
        return [(int(index), mid, outcome) for index, mid, outcome in rows]

    def doubled_hashes(self, from_ms: int, to_ms: int) -> Iterator[tuple[list[int], float]]:
        """Yield hashes of mids that more than one row has, at most 1,000 at a time, and how much is done (0 to 1).

        All that are stored are compared, a range of hashes at a time, which the projection is sorted by. Of a short
        time only its own hashes are looked for in the whole, by the same.
        """
        ((here,),) = self._clickhouse.rows(
            f"SELECT count() FROM events WHERE {_WITHIN}",  # noqa: S608 - a constant
            {"from": from_ms, "to": to_ms},
        )
        doubled = "SELECT mid_hash FROM events WHERE {} GROUP BY mid_hash HAVING count() > 1 ORDER BY mid_hash"
        if int(here) <= _ROWS_A_BUCKET:
            where = f"mid_hash GLOBAL IN (SELECT mid_hash FROM events WHERE {_WITHIN})"  # noqa: S608 - a constant
            rows = self._clickhouse.rows(doubled.format(where), {"from": from_ms, "to": to_ms})
            yield from ((chunk, 1.0) for chunk in _chunks([int(row[0]) for row in rows]))
            return
        ((stored,),) = self._clickhouse.rows("SELECT count() FROM events")
        buckets = max(int(stored) // _ROWS_A_BUCKET + 1, _LEAST_RANGES)
        for bucket in range(buckets):
            rows = self._clickhouse.rows(
                doubled.format("mid_hash >= {first:UInt64} AND mid_hash <= {last:UInt64}"),
                {"first": _HASHES * bucket // buckets, "last": _HASHES * (bucket + 1) // buckets - 1},
            )
            for chunk in _chunks([int(row[0]) for row in rows]) or [[]]:
                yield chunk, (bucket + 1) / buckets

    def doubled_mids(self, hashes: list[int], from_ms: int, to_ms: int) -> list[DoubledMid]:
        """Return the mids of these hashes, at most 1,000, that are stored more than once, one of them in the time."""
        if not hashes:
            return []
        rows = self._clickhouse.rows(
            "SELECT mid, count(), groupArray(10)((batch_id, event_index)), "  # noqa: S608 - numbers and constants
            f"toUnixTimestamp64Milli(min(received_at)) FROM events WHERE mid_hash IN ({_numbers(hashes)}) "
            f"GROUP BY mid HAVING count() > 1 AND countIf({_WITHIN}) > 0 ORDER BY mid",
            {"from": from_ms, "to": to_ms},
        )
        return [
            DoubledMid(mid, int(count), [(batch_id, int(index)) for batch_id, index in arrivals], int(first_ms))
            for mid, count, arrivals, first_ms in rows
        ]

    def eids_of(self, mids: list[DoubledMid]) -> dict[str, str]:
        """Return the eid of each of these mids, at most 1,000. By receipt, as the projection does not have it."""
        times = ", ".join(f"fromUnixTimestamp64Milli({ms}, 'UTC')" for ms in sorted({one.first_ms for one in mids}))
        rows = self._clickhouse.rows(
            "SELECT mid, any(eid) FROM events "  # noqa: S608 - numbers
            f"WHERE received_at IN ({times}) AND mid_hash IN ({_numbers(hash_mid(one.mid) for one in mids)}) "
            "GROUP BY mid"
        )
        return dict(rows)

    def sequence_gaps(self, from_ms: int, to_ms: int, limit: int) -> list[tuple[str, int, int]]:
        """Return collector, first missing number and how many are missing in a row.

        A collector counts its batches without a gap. What it numbered and then could not hand over has no later number
        behind it that came over HTTP: so a number is missing below the highest that did. A spool hands over all that
        it holds, whatever came between.

        A gap lies in the time if the batch behind it does. Others of its collector are looked for whenever they were
        received: a number is given later than the time of receipt, and another order.
        """
        rows = self._clickhouse.rows(
            "SELECT collector, before + 1, sequence - before - 1 FROM ("  # noqa: S608 - constants
            "SELECT collector, toInt64(sequence) AS sequence, received_at, "
            "lagInFrame(toInt64(sequence), 1, toInt64(-1)) OVER numbers AS before, "
            "maxIf(toInt64(sequence), source = 'http' OR endsWith(collector, '/spool')) "
            "OVER (PARTITION BY collector) AS highest "
            "FROM batches WHERE source != 'import' AND collector IN (SELECT collector FROM batch_rows "
            f"WHERE {_WITHIN} GROUP BY collector "
            "HAVING uniqExact(sequence) != max(sequence) - min(sequence) + 1 OR min(sequence) > 0) "
            "WINDOW numbers AS (PARTITION BY collector ORDER BY sequence ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)) "
            f"WHERE sequence - before > 1 AND before + 1 < highest AND {_WITHIN} ORDER BY collector, sequence "
            "LIMIT {limit:UInt32}",
            {"from": from_ms, "to": to_ms, "limit": limit},
        )
        return [(collector, int(first), int(count)) for collector, first, count in rows]

    def offset_gaps(self, from_ms: int, to_ms: int) -> Iterator[list[Gap]]:
        """Yield the offsets of ``telemetry.raw`` that no batch has, in order; a list holds those of one partition.

        Within the present generation of each partition, between the least and the greatest offset of the time's
        batches, and below what is through.
        """
        parameters = {"from": from_ms, "to": to_ms, "chunk": _CHUNK_OFFSETS}
        spans = self._clickhouse.rows(_SPANS, parameters)
        there = {
            (topic, int(partition), int(chunk)): int(count)
            for topic, partition, chunk, count in self._clickhouse.rows(
                "SELECT topic, partition, intDiv(offset, {chunk:UInt32}) AS chunk, "  # noqa: S608 - constants
                f"bitmapCardinality(groupBitmapState(offset)) FROM batch_rows INNER JOIN ({_SPANS}) AS spans "
                "USING (topic, partition) WHERE appended_at >= generation AND offset >= low AND offset < high "
                "GROUP BY topic, partition, chunk",
                parameters,
            )
        }
        for topic, partition, low, high, _ in spans:
            for first, last in slices(int(low), int(high), _CHUNK_OFFSETS):
                count = there.get((topic, int(partition), first // _CHUNK_OFFSETS), 0)
                if count != last - first:
                    yield self._gaps_of(Place(topic, int(partition), first), last, from_ms, to_ms)

    def _gaps_of(self, start: Place, last: int, from_ms: int, to_ms: int) -> list[Gap]:
        rows = self._clickhouse.rows(
            "SELECT DISTINCT offset FROM batch_rows "  # noqa: S608 - constants
            f"INNER JOIN ({_SPANS}) AS spans USING (topic, partition) "
            "WHERE appended_at >= generation AND topic = {topic:String} AND partition = {partition:UInt32} "
            "AND offset >= {first:UInt64} AND offset < {last:UInt64} ORDER BY offset",
            {
                "from": from_ms,
                "to": to_ms,
                "topic": start.topic,
                "partition": start.partition,
                "first": start.offset,
                "last": last,
            },
        )
        found, expected = [], start.offset
        for offset in [*(int(row[0]) for row in rows), last]:
            if offset > expected:
                found.append(Gap(Place(start.topic, start.partition, expected), offset - expected))
            expected = offset + 1
        return found


# The offsets to look at in each partition: those between the time's first and last batch, of the present generation.
_SPANS = f"""
SELECT topic, partition, min(offset) AS low, least(max(offset) + 1, max(complete_offset)) AS high,
    max(since) AS generation
FROM batch_rows INNER JOIN progress USING (topic, partition)
WHERE appended_at >= since AND {_WITHIN}
GROUP BY topic, partition
"""  # noqa: S608 - constants


def _chunks(values: list[T]) -> list[list[T]]:
    """Cut what goes into one query: a server takes 128 KiB in one parameter."""
    return [values[at : at + _CHUNK] for at in range(0, len(values), _CHUNK)]


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(str(int(value)) for value in values)
