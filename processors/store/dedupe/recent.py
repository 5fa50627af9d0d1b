"""The newest stored mids, whole, each with the arrival that stored it: most resends are answered without a query."""

from __future__ import annotations

from collections.abc import Iterable
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

    def find(self, wanted: Iterable[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrivals of those mids, given with their hashes, that are held."""
        found: dict[str, Arrival] = {}
        runs = (*self._young, *self._old)
        for mid_hash, mid in wanted:
            for run in runs:
                arrival = _find_in(run, mid_hash, mid)
                if arrival is not None:
                    found[mid] = arrival
                    break
        return found


def _find_in(run: _Run, mid_hash: int, mid: str) -> Arrival | None:
    key = np.uint64(mid_hash)
    place = int(np.searchsorted(run.hashes, key))
    while place < len(run.hashes) and run.hashes[place] == key:  # a hash may stand for several mids
        if run.rows["mid"][place].as_py() == mid:
            return Arrival(
                mid,
                run.rows["batch_id"][place].as_py(),
                run.rows["event_index"][place].as_py(),
                run.rows["received_at"][place].cast(pa.int64()).as_py(),
                run.rows["content_hash"][place].as_py(),
            )
        place += 1
    return None
