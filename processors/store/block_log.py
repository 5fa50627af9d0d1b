"""What became of each block of ``telemetry.valid``, and when: written beside the events, once a second.

A row tells when a block's events became visible, which no column of theirs can say: they are written before. Nothing
that is counted depends on it; what a worker had not written when it died is missing here, and only here.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

import pyarrow as pa

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.logs import get_logger
from midstream.metrics import BLOCK_LOG_ROWS
from processors.lease import Lease
from processors.store.units import InsertUnit
from processors.store.verdicts import to_arrow

log = get_logger(__name__)

BLOCK_TABLE = "block_rows"

BLOCKS: pa.Schema = pa.schema(
    [
        ("partition", pa.uint32()),
        ("offset", pa.uint64()),
        ("partitions", pa.uint32()),
        ("stored_at", pa.timestamp("ms", tz="UTC")),
        ("visible_at", pa.timestamp("ms", tz="UTC")),
        ("rows", pa.uint32()),
        ("new_rows", pa.uint32()),
        ("duplicate_rows", pa.uint32()),
        ("replayed_rows", pa.uint32()),
    ]
)
_MAX_ROWS = 10_000
_INTERVAL_S = 1.0


class BlockLog:
    """Rows of ``block_rows`` on their way; the oldest are dropped when ClickHouse takes none for long."""

    def __init__(self, clickhouse: ClickHouse, lease: Lease) -> None:
        self._clickhouse = clickhouse
        self._lease = lease
        self._rows: deque[dict[str, Any]] = deque(maxlen=_MAX_ROWS)
        self._lock = threading.Lock()

    def add(self, row: dict[str, Any]) -> None:
        """Take one row (columns :data:`BLOCKS`, times as epoch milliseconds). Any thread may."""
        with self._lock:
            self._rows.append(row)
            BLOCK_LOG_ROWS.set(len(self._rows))

    async def run(self) -> None:
        """Write what was taken, once a second, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what was taken so far; what ClickHouse does not take stays for the next time.

        Raises:
            LeaseLostError: the worker has to end.
        """
        with self._lock:
            rows = list(self._rows)
        if not rows:
            return
        unit = InsertUnit(BLOCK_TABLE, to_arrow(rows, BLOCKS), "")
        try:
            self._clickhouse.insert_stream(
                BLOCK_TABLE,
                BLOCKS.names,
                unit.body(),
                unit.token,
                tries=1,
                before_try=lambda _: self._lease.check(),
            )
        except ClickHouseError as error:
            log.warning("block_log.not_written", rows=len(rows), error=str(error)[:300])
            return
        written = {id(row) for row in rows}
        with self._lock:
            self._rows = deque((row for row in self._rows if id(row) not in written), maxlen=_MAX_ROWS)
            BLOCK_LOG_ROWS.set(len(self._rows))
