"""Writes units to ClickHouse, and makes sure that they are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.logs import get_logger
from midstream.metrics import INSERT_RETRIES, INSERT_SECONDS, INSERTS_REPEATED, STORED_EVENTS
from processors.lease import Lease
from processors.store import verdicts
from processors.store.dedupe.recent import Arrival
from processors.store.units import InsertUnit

log = get_logger(__name__)

_MAX_REPEATS = 3


class FindsStored(Protocol):
    """What :class:`processors.store.dedupe.stored.StoredMids` answers."""

    def find(self, wanted: list[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrivals of those mids, given with their hashes, that are stored."""


class Writer:
    """Inserts rows. Threads may share it.

    A token can be known whose rows are not there: a MergeTree table notes the token and then commits the part, and an
    engine that dies (or a disk that is full) between the two drops every later insert under that token without a word
    (``MergeTreeSink``; replicated tables note both in one transaction). So wherever an insert may have been tried
    before and the server cannot be seen not to have dropped it, its rows are looked for afterwards; what is missing is
    inserted under the next token of the same row of tokens, which is again the same for whoever does it.
    """

    def __init__(
        self,
        clickhouse: ClickHouse,
        stored: FindsStored,
        lease: Lease,
        insert_tries: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._clickhouse = clickhouse
        self._stored = stored
        self._lease = lease
        self._insert_tries = insert_tries
        self._clock_ms = clock_ms

    def write_events(self, unit: InsertUnit, *, tried_before: bool) -> list[dict[str, Any]]:
        """Insert a unit of events. Rows that ClickHouse refuses for their content come back as rows of ``rejects``,
        one by one: no neighbour is lost.

        Args:
            unit: the events.
            tried_before: another worker, or this one in an earlier life, may have tried to insert them.

        Raises:
            ClickHouseError: the environment does not let it.
            LeaseLostError: this worker stood still too long.
        """
        dropped = self._clickhouse.dropped_inserts() if tried_before else None
        try:
            tries = self._insert(unit)
        except ClickHouseError as error:
            if not error.by_data:
                raise
            if unit.rows.num_rows == 1:
                log.error("store.event_parked", table=unit.table, error=str(error)[:500])
                return [verdicts.poison_event(unit.rows, str(error), self._clock_ms())]
            return [letter for half in unit.halves() for letter in self.write_events(half, tried_before=True)]
        if tries > 1 or (tried_before and (dropped is None or self._clickhouse.dropped_inserts() != dropped)):
            self._make_sure(unit)
        STORED_EVENTS.labels(unit.table).inc(unit.rows.num_rows)
        return []

    def write_verdicts(self, table: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
        """Insert rows of a table whose view shows one row an arrival. Raises as :meth:`write_events`.

        Without a token: a row that is there twice shows once, and one whose token is known without it would be lost.
        """
        if rows:
            self._insert(InsertUnit(table, verdicts.to_arrow(rows, schema), ""))

    def _make_sure(self, unit: InsertUnit) -> None:
        if self._clickhouse.is_cluster:  # tokens and parts are noted together, and a replica may lag behind
            return
        for repeat in range(1, _MAX_REPEATS + 1):
            missing = self._missing(unit)
            if missing.num_rows == 0:
                return
            log.warning("insert.token_without_rows", table=unit.table, rows=missing.num_rows, repeat=repeat)
            INSERTS_REPEATED.labels(unit.table).inc()
            self._insert(InsertUnit(unit.table, missing, f"{unit.token}/{repeat}"))
        if self._missing(unit).num_rows:
            raise ClickHouseError(f"{unit.table} does not keep the rows that it takes", None)

    def _missing(self, unit: InsertUnit) -> pa.RecordBatch:
        mids = unit.rows.column("mid").to_pylist()
        found = self._stored.find(list(zip(unit.rows.column("mid_hash").to_pylist(), mids, strict=True)))
        return unit.rows.take(pa.array([row for row, mid in enumerate(mids) if mid not in found], pa.int64()))

    def _insert(self, unit: InsertUnit) -> int:
        """Return the number of tries that it took."""
        made = 0

        def before_try(tries: int) -> None:
            nonlocal made
            self._lease.check()
            made = tries + 1
            if tries:
                INSERT_RETRIES.labels(unit.table).inc()
                log.warning("insert.retried", table=unit.table, tries=tries)

        with INSERT_SECONDS.labels(unit.table).time():
            self._clickhouse.insert_stream(
                unit.table,
                unit.rows.schema.names,
                unit.body(),
                unit.token,
                tries=self._insert_tries,
                before_try=before_try,
            )
        return made
