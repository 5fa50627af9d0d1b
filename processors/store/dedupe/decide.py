"""The decision on each row of a block: new, a duplicate, or a replay. The invariant that exactness rests on stands
here.

A row is new when no arrival of its mid is stored; a duplicate when another arrival is; a replay when its own arrival is
(the block, or its batch, has been here before). All arrivals of a mid lie in one partition, read by one worker at a
time in one order; so whoever decides on a record decides alike, and inserts the same rows under the same token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from processors.store.dedupe.history import Hashes
from processors.store.dedupe.recent import ARRIVAL_COLUMNS, Arrival, read_arrivals


class Known(Protocol):
    """What :class:`processors.store.dedupe.cache.DedupeCache` answers."""

    def maybe_stored(self, hashes: Hashes, of: int) -> npt.NDArray[np.bool_]:
        """Tell for each hash of a block (spread over ``of`` partitions) whether its mid may be stored; False is
        certain."""

    def find(self, wanted: Sequence[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrival that stored each of those mids that are stored."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Indices into the block."""

    new: npt.NDArray[np.int64]
    duplicates: list[tuple[int, Arrival]]
    """With the arrival that stored the mid."""
    replays: int


def decide(block: pa.RecordBatch, hashes: Hashes, of: int, known: Known) -> Decision:
    """Decide on every row of a block, whose mids have these hashes and were spread over ``of`` partitions."""
    rows = block.num_rows
    suspect = known.maybe_stored(hashes, of)
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    repeated = counts[inverse] > 1
    doubtful = np.flatnonzero(suspect | repeated)
    if len(doubtful) == 0:
        return Decision(np.arange(rows, dtype=np.int64), [], 0)

    arrivals = read_arrivals(block.select(ARRIVAL_COLUMNS).take(pa.array(doubtful)))
    may_be_stored = suspect[doubtful].tolist()
    stored = known.find(
        [
            (mid_hash, own.mid)
            for mid_hash, own, may_be in zip(hashes[doubtful].tolist(), arrivals, may_be_stored, strict=True)
            if may_be
        ]
    )

    keep = np.ones(rows, dtype=np.bool_)
    duplicates: list[tuple[int, Arrival]] = []
    replays = 0
    for row, own in zip(doubtful.tolist(), arrivals, strict=True):
        first = stored.get(own.mid)
        if first is None:
            stored[own.mid] = own  # new: a later row of this block with the same mid finds it here
            continue
        keep[row] = False
        if (first.batch_id, first.event_index) == (own.batch_id, own.event_index):
            replays += 1
        else:
            duplicates.append((row, first))
    return Decision(np.flatnonzero(keep), duplicates, replays)
