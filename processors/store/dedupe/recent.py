"""The newest stored mids, whole, each with the arrival that stored it: most resends are answered without a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from processors.store.dedupe.history import Hashes

ARRIVAL_COLUMNS = ("mid", "batch_id", "event_index", "received_at", "content_hash")


class Arrival(NamedTuple):
    """The arrival that stored a mid."""

    mid: str
    batch_id: str
    event_index: int
    received_at_ms: int
    content_hash: int


def read_arrivals(rows: pa.RecordBatch | pa.Table) -> list[Arrival]:
    """Return the arrivals of rows with the columns :data:`ARRIVAL_COLUMNS`."""
    columns = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in rows.columns
    ]
    return [Arrival(*values) for values in zip(*columns, strict=True)]


class _Run(NamedTuple):
    hashes: Hashes  # sorted
    rows: pa.Table  # ARRIVAL_COLUMNS, in the same order


class Recent:
    """At most ``2 * limit`` newest mids, in two generations; the older one is dropped when the newer is full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._young: list[_Run] = []
        self._old: list[_Run] = []
        self._young_rows = 0

    def __len__(self) -> int:
        return sum(len(run.hashes) for run in (*self._young, *self._old))

    @property
    def held_bytes(self) -> int:
        """Memory held."""
        return sum(run.hashes.nbytes + run.rows.nbytes for run in (*self._young, *self._old))

    def add(self, hashes: Hashes, rows: pa.Table) -> None:
        """Add stored rows (columns :data:`ARRIVAL_COLUMNS`), whose mids have these hashes."""
        order = np.argsort(hashes)
        self._young.append(_Run(hashes[order], rows.take(pa.array(order)).combine_chunks()))
        self._young_rows += len(hashes)
        while len(self._young) > 1 and len(self._young[-2].hashes) < 4 * len(self._young[-1].hashes):
            last, before = self._young.pop(), self._young.pop()
            merged = np.concatenate((before.hashes, last.hashes))
            order = np.argsort(merged, kind="stable")
            both = pa.concat_tables((before.rows, last.rows)).take(pa.array(order))
            self._young.append(_Run(merged[order], both.combine_chunks()))
        if self._young_rows >= self._limit:
            self._old, self._young, self._young_rows = self._young, [], 0

    def find(self, wanted: Sequence[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrivals of those mids, given with their hashes, that are held."""
        found: dict[str, Arrival] = {}
        if not wanted:
            return found
        hashes = np.array([mid_hash for mid_hash, _ in wanted], dtype=np.uint64)
        mids = [mid for _, mid in wanted]
        for run in (*self._young, *self._old):
            _find_in(run, hashes, mids, found)
        return found


def _find_in(run: _Run, hashes: Hashes, mids: Sequence[str], found: dict[str, Arrival]) -> None:
    """Add to ``found`` the arrivals of those mids that the run holds."""
    first = np.searchsorted(run.hashes, hashes)
    count = np.searchsorted(run.hashes, hashes, side="right") - first
    (hits,) = np.nonzero(count)
    if not len(hits):
        return
    # A hash may stand for several mids: each of its places is looked at.
    owners = np.repeat(hits, count[hits])
    places = np.arange(len(owners)) - np.repeat(np.cumsum(count[hits]) - count[hits], count[hits])
    rows = run.rows.take(pa.array(places + first[owners]))
    for owner, arrival in zip(owners.tolist(), read_arrivals(rows), strict=True):
        if arrival.mid == mids[owner]:
            found.setdefault(arrival.mid, arrival)
