"""What ClickHouse has of a run, and whether it agrees with the client's ledger."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.local.demo.day import Batch, Day
from deploy.local.demo.sender import Ledger
from midstream.clickhouse.client import ClickHouse

_POLL_S = 0.4

# A run's batches are found by `params.msgid`, which the client chose: so a batch whose reply was lost is found too.
_SINCE = "received_at >= fromUnixTimestamp64Milli({since_ms:Int64})"
_BATCHES = f"FROM batches WHERE {_SINCE} AND startsWith(msgid, {{prefix:String}})"
_OURS = f"{_SINCE} AND batch_id IN (SELECT batch_id {_BATCHES})"


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of arrivals."""

    received: int
    stored: int
    duplicate: int
    rejected: int

    @property
    def add_up(self) -> bool:
        """Whether everything received is somewhere."""
        return self.received == self.stored + self.duplicate + self.rejected


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    batches: dict[str, tuple[str, int]]
    """``msgid`` and number of events by batch id."""
    counts: Counts
    stored_mids: collections.Counter[str]
    differing: int
    """Duplicates whose contents were not those of the stored event."""
    rejects: list[dict[str, Any]]
    """``code, count, pointer, message`` by code; pointer and message of the commonest kind."""
    tables: list[dict[str, Any]]
    """``table, of_this_run, in_all``."""


class RunReader:
    """Reads one run. ``since_ms`` is a moment before its first batch (epoch milliseconds)."""

    def __init__(self, clickhouse: ClickHouse, run: str, since_ms: int) -> None:
        self._clickhouse = clickhouse
        self._parameters = {"since_ms": since_ms, "prefix": f"demo-{run}-"}

    def wait_for_dimensions(self, dimensions: Mapping[str, list[dict[str, Any]]], limit_s: float) -> bool:
        """Wait until ClickHouse has the objects; return whether it has."""

        def there() -> bool:
            return all(
                self._clickhouse.rows(
                    "SELECT count() FROM dimensions WHERE type = {type:String} AND id IN {ids:Array(String)}",
                    {"type": type_, "ids": [row["id"] for row in rows]},
                )[0][0]
                == len(rows)
                for type_, rows in dimensions.items()
            )

        return _until(there, limit_s)

    def wait_until_complete(self, ledger: Ledger, limit_s: float, told: Callable[[int], None]) -> bool:
        """Wait until all accepted batches are there and all their events are somewhere; return whether they are.

        ``told`` is called with the number of arrivals that are accounted for.
        """
        missing = set(ledger.accepted)

        def complete() -> bool:
            # The batches first: a batch that came after the counting would be one whose events were not counted.
            missing.difference_update(self._batches())
            counts = self.counts()
            told(counts.stored + counts.duplicate + counts.rejected)
            return not missing and counts.add_up

        return _until(complete, limit_s)

    def counts(self) -> Counts:
        """Count the run's arrivals."""
        ((received, stored, duplicate, rejected),) = self._clickhouse.rows(
            f"SELECT (SELECT sum(events) {_BATCHES}), (SELECT count() FROM events WHERE {_OURS}), "  # noqa: S608
            f"(SELECT count() FROM duplicates WHERE {_OURS}), (SELECT count() FROM rejects WHERE {_OURS})",
            self._parameters,
        )
        return Counts(int(received), int(stored), int(duplicate), int(rejected))

    def read(self) -> Outcome:
        """Read all that is compared and shown."""
        rows = self._clickhouse.rows
        ((differing,),) = rows(f"SELECT countIf(differs) FROM duplicates WHERE {_OURS}", self._parameters)  # noqa: S608
        mids = rows(f"SELECT mid FROM events WHERE {_OURS}", self._parameters)  # noqa: S608 - constants
        rejects = self._clickhouse.named_rows(
            "SELECT code, sum(alike) AS count, argMax(pointer, alike) AS pointer, argMax(message, alike) AS message "  # noqa: S608
            "FROM (SELECT code, pointer, min(message) AS message, count() AS alike "
            f"FROM rejects WHERE {_OURS} GROUP BY code, pointer) GROUP BY code ORDER BY count DESC, code",
            self._parameters,
        )
        return Outcome(
            self._batches(),
            self.counts(),
            collections.Counter(str(row[0]) for row in mids),
            int(differing),
            rejects,
            self._tables(),
        )

    def arrivals(self, mid: str) -> list[dict[str, Any]]:
        """Return every arrival of an event in order of receipt: by whom, where in Kafka, what became of it."""
        return self._clickhouse.named_rows(ARRIVALS_SQL, {"mid": mid})

    def accounting(self, limit_s: float) -> list[dict[str, Any]]:
        """Return the accounting of the minutes in which the run was received, of all that was received then.

        Waits for a moment until nothing is in flight: the workers publish their progress once a second.
        """
        found: list[dict[str, Any]] = []

        def settled() -> bool:
            found[:] = self._clickhouse.named_rows(
                "SELECT * EXCEPT complete_until FROM accounting WHERE minute IN "  # noqa: S608 - constants
                f"(SELECT toStartOfMinute(received_at) {_BATCHES}) ORDER BY minute, channel",
                self._parameters,
            )
            return not any(row["in_flight"] for row in found)

        _until(settled, limit_s)
        return found

    def _batches(self) -> dict[str, tuple[str, int]]:
        rows = self._clickhouse.rows(f"SELECT batch_id, msgid, events {_BATCHES}", self._parameters)
        return {batch_id: (msgid, int(events)) for batch_id, msgid, events in rows}

    def _tables(self) -> list[dict[str, Any]]:
        tables: list[dict[str, Any]] = []
        for table in ("learning_events", "operational_events", "duplicates", "rejects"):
            ((ours, all_),) = self._clickhouse.rows(f"SELECT countIf({_OURS}), count() FROM {table}", self._parameters)  # noqa: S608
            tables.append({"table": table, "of_this_run": int(ours), "in_all": int(all_)})
        ((batches,),) = self._clickhouse.rows("SELECT count() FROM batches")
        ((dimensions,),) = self._clickhouse.rows("SELECT count() FROM dimensions")
        tables.append({"table": "batches", "of_this_run": len(self._batches()), "in_all": int(batches)})
        tables.append({"table": "dimensions", "of_this_run": None, "in_all": int(dimensions)})
        return tables


ARRIVALS_SQL = """\
SELECT received_at, outcome, batch_id, event_index, app, b.did AS batch_did, credential, topic, partition, offset
FROM
(
    SELECT batch_id, event_index, 'stored' AS outcome FROM events WHERE mid = {mid:String}
    UNION ALL
    SELECT batch_id, event_index, 'duplicate' FROM duplicates WHERE mid = {mid:String}
    UNION ALL
    SELECT batch_id, toUInt32(event_index), 'rejected' FROM rejects WHERE mid = {mid:String}
) AS a
INNER JOIN batches AS b USING (batch_id)
ORDER BY received_at, batch_id"""


def compare(day: Day, ledger: Ledger, outcome: Outcome) -> list[str]:
    """Return what does not agree, in words; nothing when every event is where it must be.

    What must be there follows from the batches that were received. These are the accepted ones and, where a reply got
    lost for real, some of which the client does not know.
    """
    problems = []
    lost = set(ledger.accepted) - set(outcome.batches)
    if lost:
        problems.append(f"{len(lost)} accepted batches are not in `batches`, such as {min(lost)}")
    more = len(set(outcome.batches) - set(ledger.accepted))
    if more > ledger.unknown:
        problems.append(f"{more} batches are in `batches` that were not accepted")
    by_msgid = {batch.msgid: batch for batch in day.batches}
    received = [(by_msgid[msgid], events) for msgid, events in outcome.batches.values()]
    wrong = sum(len(batch.events) != events for batch, events in received)
    if wrong:
        problems.append(f"{wrong} batches have another number of events than were sent in them")
    expected = expected_counts(day, [batch for batch, _ in received])
    for name in Counts.__dataclass_fields__:
        must, is_ = getattr(expected, name), getattr(outcome.counts, name)
        if must != is_:
            problems.append(f"{name}: {is_:,} instead of {must:,}")
    codes = expected_codes([batch for batch, _ in received])
    found = {row["code"]: int(row["count"]) for row in outcome.rejects}
    if codes != found:
        problems.append(f"rejected by code: {found} instead of {dict(codes)}")
    missing = day.good_mids - set(outcome.stored_mids)
    if missing:
        problems.append(f"{len(missing)} good events are not stored, such as {min(missing)}")
    twice = [mid for mid, times in outcome.stored_mids.items() if times > 1]
    if twice:
        problems.append(f"{len(twice)} events are stored more than once, such as {min(twice)}")
    return problems


def expected_counts(day: Day, batches: list[Batch]) -> Counts:
    """Return what must become of these batches, which hold every event of the day at least once."""
    received = sum(len(batch.events) for batch in batches)
    rejected = expected_codes(batches).total()
    stored = len(day.good_mids)
    return Counts(received, stored, received - rejected - stored, rejected)


def expected_codes(batches: list[Batch]) -> collections.Counter[str]:
    """Return how many arrivals in these batches must be refused, by reason code."""
    return collections.Counter(
        event.refusal.value for batch in batches for event in batch.events if event.refusal is not None
    )


def _until(done: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
