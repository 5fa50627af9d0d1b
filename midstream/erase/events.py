"""Stored events that name an erased person are written again under the pseudonym, and count once all the time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa

from midstream.clickhouse.client import ClickHouse
from midstream.correct.overlay import GRACE_S, Overlay
from midstream.logs import get_logger
from processors.store.route import EVENT_TABLES

_log = get_logger(__name__)

Rewrite = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, Sequence[int]]]
"""Gives rows of an event table under the pseudonym, and which of them (their places) are other than before."""

_ROWS_A_QUERY = 500  # an event may take 512 KiB, several times
_MIDS_A_QUERY_CHARS = 8_000
_MAX_PASS = 100_000
_TRIES = 5
_HIDDEN = "(SELECT arrayJoin(argMax(hidden, generation)) FROM correction_rows WHERE slot = 1)"


class _Place(NamedTuple):
    received_at_ms: int
    mid: str


class EventEraser:
    """One at a time in a deployment: who has the lease of the jobs. Blocks.

    Three states, of which the overlay tells after a crash which it was: copies are held back while they are written
    (they are removed), shown in place of the others, which are being removed (that goes on), nothing.
    """

    def __init__(
        self,
        clickhouse: ClickHouse,
        cluster: str,
        *,
        grace_s: float = GRACE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clickhouse = clickhouse
        self._on_cluster = f"_local ON CLUSTER '{cluster}'" if cluster else ""
        self._overlay = Overlay(clickhouse, bool(cluster))
        self._grace_s = grace_s
        self._sleep = sleep

    def erase(self, where: str, rewrite: Rewrite, check: Callable[[], None]) -> int:
        """Write events again, and remove what they were; return how many changed.

        Args:
            where: SQL of which events may name the person.
            rewrite: gives the rows under the pseudonym.
            check: called between portions, where it is safe to stop; raises to have it stop.

        Raises:
            ClickHouseError: it can be called again, and goes on.
        """
        self.recover()
        rows = 0
        found = {table: self._find(table, where) for table in EVENT_TABLES}
        while any(found.values()):
            check()
            number = self._next_number()
            self._overlay.keep_back(number)
            self._sleep(self._grace_s)
            mids: list[str] = []
            for table in EVENT_TABLES:
                taken = found[table][: _MAX_PASS - len(mids)]
                found[table] = found[table][len(taken) :]
                for portion in _portions(taken):
                    mids += self._copy(table, portion, number, rewrite)
            rows += len(mids)
            if mids:
                self._overlay.swap(number, mids)
                self._finish(number)
            else:
                self._overlay.clear()
        return rows

    def days(self, where: str) -> list[date]:
        """Return the days of receipt, UTC, of events that were written again; ``where`` says which of them.

        Raises:
            ClickHouseError: ClickHouse does not answer.
        """
        found: set[date] = set()
        for table in EVENT_TABLES:
            query = f"SELECT DISTINCT toDate(received_at) FROM {table} WHERE erasure > 0 AND ({where})"  # noqa: S608
            found.update(day for (day,) in self._clickhouse.rows(query))
        return sorted(found)

    def recover(self) -> None:
        """Bring to its end what one who died has left. Whoever takes the lease calls it before anything else.

        Raises:
            ClickHouseError: it can be called again.
        """
        type_, number = self._overlay.left_over()
        if type_:
            raise RuntimeError("a correction was broken off, which must be recovered from first")
        if not number:
            return
        ((hidden,),) = self._clickhouse.rows(f"SELECT count() FROM {_HIDDEN}")  # noqa: S608 - a constant
        _log.warning("erase.left_over", hidden=hidden)
        self._overlay.take_over()
        if hidden:
            self._finish(number)
        else:
            self._sleep(self._grace_s)
            self._delete(f"erasure = {number}")
            self._overlay.clear()

    def _finish(self, number: int) -> None:
        self._sleep(self._grace_s)
        self._delete(f"erasure < {number} AND mid IN {_HIDDEN}")
        self._overlay.clear()

    def _find(self, table: str, where: str) -> list[_Place]:
        rows = self._clickhouse.rows(
            f"SELECT toUnixTimestamp64Milli(received_at), mid FROM {table} WHERE {where} ORDER BY received_at, mid",  # noqa: S608
        )
        return [_Place(*row) for row in rows]

    def _copy(self, table: str, places: Sequence[_Place], number: int, rewrite: Rewrite) -> list[str]:
        # By the times, ClickHouse leaves out all parts but few.
        times = ", ".join(f"fromUnixTimestamp64Milli({ms}, 'UTC')" for ms in sorted({at for at, _ in places}))
        rows = self._clickhouse.arrow(
            f"SELECT * FROM {table} WHERE mid IN {{mids:Array(String)}} AND received_at IN ({times})",  # noqa: S608
            {"mids": [mid for _, mid in places]},
        )
        (batch,) = rows.combine_chunks().to_batches() or (None,)
        if batch is None:
            return []
        copies, changed = rewrite(batch)
        copies = copies.take(pa.array(changed, pa.int64()))
        if not copies.num_rows:
            return []
        place = copies.schema.get_field_index("erasure")
        copies = copies.set_column(place, "erasure", pa.array([number] * copies.num_rows, pa.uint32()))
        mids: list[str] = copies.column("mid").to_pylist()
        self._insert(table, copies)
        return mids

    def _insert(self, table: str, rows: pa.RecordBatch) -> None:
        # Each month of receipt is a partition and a block, and a token covers one block. No token is used again: the
        # number of an erasure that was broken off is, and its rows are others.
        months = [at.strftime("%Y%m") for at in rows.column("received_at").to_pylist()]
        order = sorted(range(rows.num_rows), key=months.__getitem__)
        for _, group in groupby(order, key=months.__getitem__):
            part = rows.take(pa.array(list(group), pa.int64()))
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, part.schema) as writer:
                writer.write_batch(part)
            body: bytes = sink.getvalue().to_pybytes()
            self._clickhouse.insert_stream(
                table,
                part.schema.names,
                body,
                uuid.uuid4().hex,
                tries=_TRIES,
                before_try=lambda _: self._overlay.check(),
            )

    def _delete(self, condition: str) -> None:
        for table in EVENT_TABLES:
            self._overlay.check()
            # Not a lightweight delete: the rows are to leave the disk, not only the answers.
            self._clickhouse.command(
                f"ALTER TABLE {table}{self._on_cluster} DELETE WHERE {condition}",
                {"mutations_sync": 2, "allow_nondeterministic_mutations": 1},
            )

    def _next_number(self) -> int:
        highest = [
            self._clickhouse.rows(f"SELECT max(erasure) FROM {table}")[0][0]  # noqa: S608 - a constant
            for table in EVENT_TABLES
        ]
        return int(max(highest)) + 1


def _portions(places: Sequence[_Place]) -> Iterator[list[_Place]]:
    portion: list[_Place] = []
    chars = 0
    for place in places:
        if portion and (len(portion) == _ROWS_A_QUERY or chars + len(place.mid) > _MIDS_A_QUERY_CHARS):
            yield portion
            portion, chars = [], 0
        portion.append(place)
        chars += len(place.mid)
    if portion:
        yield portion
