"""The dedupe cache of one worker: rebuilt from ClickHouse when partitions are assigned, added to after each insert."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from midstream.logs import get_logger
from midstream.metrics import DEDUPE_BYTES, DEDUPE_LIMIT_BYTES, DEDUPE_LOOKUPS, DEDUPE_MIDS
from processors.store.dedupe.history import Hashes, History
from processors.store.dedupe.recent import ARRIVAL_COLUMNS, Arrival, Recent
from processors.store.dedupe.stored import StoredMids

log = get_logger(__name__)


class DedupeCache:
    """What ClickHouse holds of the assigned partitions, as far as a worker remembers it.

    A mid enters only after the insert that stored it returned, so that a failed insert leaves no trace here.
    """

    def __init__(self, stored: StoredMids, memory_bytes: int, recent: int) -> None:
        self._stored = stored
        self._memory_bytes = memory_bytes
        self.partitions: frozenset[int] = frozenset()
        self.of = 0
        self._tried_below: dict[int, int] = {}
        self._history = History(memory_bytes)
        self._recent = Recent(recent)
        DEDUPE_LIMIT_BYTES.set(memory_bytes)

    def load(self, partitions: Sequence[int], of: int) -> None:
        """Read the hashes of all stored mids of ``partitions`` (of ``of`` in all) from ClickHouse."""
        self.partitions, self.of = frozenset(partitions), of
        self._tried_below = {}
        self._history = History(self._memory_bytes, self._stored.count() * len(partitions) // max(of, 1))
        for hashes in self._stored.hashes(partitions, of):
            self._history.add(hashes)
        self._publish()
        log.info("dedupe.loaded", partitions=list(partitions), mids=self.held_mids)

    def saw_end(self, partition: int, end: int) -> None:
        """Take the end of a partition as it was when this cache was loaded, or later."""
        self._tried_below.setdefault(partition, end)

    def may_have_been_tried(self, partition: int, offset: int) -> bool:
        """Tell whether another worker, or this one in an earlier life, may have tried to insert a record.

        Whoever had the partition before was ahead of what it committed by as many blocks as it had taken up, and none
        of these was beyond the end of that time.
        """
        end = self._tried_below.get(partition)
        return end is None or offset < end

    def maybe_stored(self, hashes: Hashes, of: int) -> npt.NDArray[np.bool_]:
        """Tell for each hash of a block whether its mid may be stored; False is certain.

        A block that was spread over another number of partitions may hold mids that this cache was not loaded for. For
        those that it was loaded for it knows all: since then, nobody else has decided on them.
        """
        suspect = self._history.maybe(hashes)
        if of != self.of:
            loaded = np.array(sorted(self.partitions), dtype=np.uint64)
            suspect |= ~np.isin(hashes % np.uint64(max(self.of, 1)), loaded)
        return suspect

    def find(self, wanted: Sequence[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrival that stored each of those mids that are stored: from memory, else from ClickHouse, in
        one query."""
        found = self._recent.find(wanted)
        missing = [pair for pair in wanted if pair[1] not in found]
        if missing:
            asked = self._stored.find(missing)
            DEDUPE_LOOKUPS.labels("stored").inc(len(asked))
            DEDUPE_LOOKUPS.labels("unknown").inc(len(missing) - len(asked))
            found.update(asked)
        return found

    def add(self, hashes: Hashes, rows: pa.Table) -> None:
        """Add rows that have been stored."""
        self._history.add(hashes)
        self._recent.add(hashes, rows.select(list(ARRIVAL_COLUMNS)))
        self._publish()

    @property
    def held_mids(self) -> int:
        """Mids held, each once: what is recent is in the history too."""
        return self._history.sorted_mids + self._history.filtered_mids

    @property
    def held_bytes(self) -> int:
        """Memory held for them."""
        return self._history.held_bytes + self._recent.held_bytes

    def _publish(self) -> None:
        DEDUPE_MIDS.labels("recent").set(len(self._recent))
        DEDUPE_MIDS.labels("sorted").set(self._history.sorted_mids)
        DEDUPE_MIDS.labels("filter").set(self._history.filtered_mids)
        DEDUPE_BYTES.set(self.held_bytes)
