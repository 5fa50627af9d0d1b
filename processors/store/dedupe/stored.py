"""What ClickHouse knows of stored mids, through the projection by hash of the event tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from midstream.clickhouse.client import ClickHouse
from processors.store.dedupe.history import Hashes
from processors.store.dedupe.recent import Arrival
from processors.store.route import EVENT_TABLES

_HASH_BYTES = 8
_LOOKUP_CHUNK = 5_000
_FIND = "SELECT mid, batch_id, event_index, toUnixTimestamp64Milli(received_at), content_hash"


class StoredMids:
    """Queries for the dedupe cache."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    def count(self) -> int:
        """Return how many events are stored."""
        counts = " UNION ALL ".join(f"SELECT count() FROM {table}" for table in EVENT_TABLES)  # noqa: S608 - our own table names
        return sum(int(rows) for (rows,) in self._clickhouse.rows(counts))

    def hashes(self, partitions: Sequence[int], of: int) -> Iterator[Hashes]:
        """Yield the hashes of all stored mids whose partition (of ``of``) is one of ``partitions``, in large arrays."""
        if not partitions:
            return
        listed = ",".join(str(int(partition)) for partition in partitions)
        for table in EVENT_TABLES:
            sql = f"SELECT mid_hash FROM {table} WHERE mid_hash % {int(of)} IN ({listed})"  # noqa: S608 - numbers and our own table names
            left = b""
            for chunk in self._clickhouse.row_binary(sql, chunk_bytes=16 << 20):
                data = left + chunk
                whole = len(data) // _HASH_BYTES * _HASH_BYTES
                left = data[whole:]
                yield np.frombuffer(data[:whole], dtype="<u8").astype(np.uint64)

    def find(self, wanted: Sequence[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrivals of those mids, given with their hashes, that are stored."""
        found: dict[str, Arrival] = {}
        for start in range(0, len(wanted), _LOOKUP_CHUNK):
            chunk = wanted[start : start + _LOOKUP_CHUNK]
            mids = {mid for _, mid in chunk}
            listed = ",".join(str(int(mid_hash)) for mid_hash, _ in chunk)
            selects = " UNION ALL ".join(f"{_FIND} FROM {table} WHERE mid_hash IN ({listed})" for table in EVENT_TABLES)
            for row in self._clickhouse.rows(selects):
                if row[0] in mids:  # the whole mid, not its hash, says that it is stored
                    found[row[0]] = Arrival(*row)
        return found
