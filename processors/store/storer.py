"""Storing records: the one place where the steps of ``store`` meet ClickHouse. Runs in a thread; knows nothing of
Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from midstream.clickhouse.client import ClickHouse
from midstream.logs import get_logger
from midstream.metrics import DUPLICATE_EVENTS, REJECTED_EVENTS, REPLAYED_EVENTS, VISIBLE_SECONDS
from midstream.records import RecordError
from processors.store import verdicts
from processors.store.block import mid_hashes, read_block
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.decide import decide
from processors.store.dedupe.recent import Arrival
from processors.store.dedupe.stored import StoredMids
from processors.store.denormalise import COLUMNS, denormalise
from processors.store.dimension_cache import DimensionCache
from processors.store.lease import Lease
from processors.store.same_content import same_content
from processors.store.units import event_units
from processors.store.writer import FindsStored, Writer

log = get_logger(__name__)

_MS = pa.timestamp("ms", tz="UTC")
_EXTRA = ("stored_at", *COLUMNS)
_MAX_REJECTS_BYTES = 16 * 1024 * 1024
_TEXTS_A_QUERY = 32
_MID_CHARS_A_QUERY = 8_000  # a server takes 128 KiB in one parameter, and a character may take twelve bytes there


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What ``store`` needs of a Kafka record."""

    topic: str
    partition: int
    offset: int
    append_time_ms: int
    value: bytes


def now_ms() -> int:
    """Epoch milliseconds of the system clock."""
    return time.time_ns() // 1_000_000


class Storer:
    """Stores blocks of events and of dead letters. When a call returns, all that it was given is in ClickHouse."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        dimensions: DimensionCache,
        lease: Lease,
        insert_tries: int,
        *,
        stored: FindsStored | None = None,
        clock_ms: Callable[[], int] = now_ms,
        log_block: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self._clickhouse = clickhouse
        self._dimensions = dimensions
        self._clock_ms = clock_ms
        self._writer = Writer(clickhouse, stored or StoredMids(clickhouse), lease, insert_tries, clock_ms)
        self._log_block = log_block
        # The tables of one record are inserted side by side: an insert is mostly waiting.
        self._inserts = ThreadPoolExecutor(max_workers=4, thread_name_prefix="insert")

    def store_valid(self, records: Sequence[StoreRecord], cache: DedupeCache) -> None:
        """Store records of ``telemetry.valid``, in order.

        Raises:
            ClickHouseError: the environment does not let it; nothing of the record under way may be acknowledged.
            LeaseLostError: this worker stood still too long.
        """
        duplicates: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        for record in records:
            self._store_block(record, cache, duplicates, rejects)
        self._writer.write_verdicts(verdicts.DUPLICATE_TABLE, verdicts.DUPLICATES, duplicates)
        DUPLICATE_EVENTS.inc(len(duplicates))
        self._insert_rejects(rejects)

    def store_dead(self, records: Sequence[StoreRecord]) -> None:
        """Store records of ``telemetry.dead`` in ``rejects``. Raises as :meth:`store_valid`."""
        rows: list[dict[str, Any]] = []
        for record in records:
            try:
                rows += verdicts.reject_rows(record.value, self._clock_ms())
            except RecordError as error:
                rows.append(self._poison(record, error))
            if sum(len(row["raw"]) for row in rows) > _MAX_REJECTS_BYTES:
                self._insert_rejects(rows)
                rows = []
        self._insert_rejects(rows)

    def _store_block(
        self, record: StoreRecord, cache: DedupeCache, duplicates: list[dict[str, Any]], rejects: list[dict[str, Any]]
    ) -> None:
        try:
            block, partitions = read_block(record.value)
        except RecordError as error:
            rejects.append(self._poison(record, error))
            return
        hashes = mid_hashes(block)
        decision = decide(block, hashes, partitions, cache)
        all_new = len(decision.new) == block.num_rows
        new = block if all_new else block.take(pa.array(decision.new))
        stored_at_ms = visible_at_ms = self._clock_ms()
        if new.num_rows:
            stored_at = pa.array([stored_at_ms] * new.num_rows, _MS)
            units = event_units(new, _EXTRA, [stored_at, *denormalise(new, self._dimensions)], record.value)
            parked: set[tuple[str, int]] = set()
            write = partial(self._writer.write_events, tried_before=record.partition in cache.unproven)
            written = list(self._inserts.map(write, units))
            for letters in (one.letters for one in written):
                rejects += letters
                parked |= {(letter["batch_id"], letter["event_index"]) for letter in letters}
            self._remember(cache, new, hashes if all_new else hashes[decision.new], parked)
            if not any(one.repeated for one in written):
                cache.unproven.discard(record.partition)
            visible_at_ms = self._clock_ms()
            VISIBLE_SECONDS.observe((visible_at_ms - _oldest_ms(new)) / 1000)
        if decision.duplicates:
            differs = self._differs(block, decision.duplicates)
            duplicates += verdicts.duplicate_rows(block, decision.duplicates, differs, self._clock_ms())
        REPLAYED_EVENTS.inc(decision.replays)
        self._log_block(
            {
                "partition": record.partition,
                "offset": record.offset,
                "partitions": partitions,
                "stored_at": stored_at_ms,
                "visible_at": visible_at_ms,
                "rows": block.num_rows,
                "new_rows": new.num_rows,
                "duplicate_rows": len(decision.duplicates),
                "replayed_rows": decision.replays,
            }
        )

    def _remember(self, cache: DedupeCache, new: pa.RecordBatch, hashes: Any, parked: set[tuple[str, int]]) -> None:
        """Add to the cache what has been stored; what was parked has not."""
        rows = pa.Table.from_batches([new])
        if parked:
            arrivals = zip(new.column("batch_id").to_pylist(), new.column("event_index").to_pylist(), strict=True)
            kept = [index for index, arrival in enumerate(arrivals) if arrival not in parked]
            rows, hashes = rows.take(pa.array(kept, pa.int64())), hashes[kept]
        cache.add(hashes, rows)

    def _insert_rejects(self, rows: list[dict[str, Any]]) -> None:
        self._writer.write_verdicts(verdicts.REJECT_TABLE, verdicts.REJECTS, rows)
        REJECTED_EVENTS.inc(len(rows))

    def _differs(self, block: pa.RecordBatch, found: list[tuple[int, Arrival]]) -> list[bool]:
        """Tell for each duplicate whether its content is another than the stored event's; spacing and order of keys
        do not count."""
        contents, mids, raws = block.column("content_hash"), block.column("mid"), block.column("raw")
        doubtful = {mids[row].as_py() for row, first in found if contents[row].as_py() != first.content_hash}
        stored = self._stored_texts(sorted(doubtful))
        return [
            contents[row].as_py() != first.content_hash
            and not same_content(stored.get(first.mid, ""), raws[row].as_py())
            for row, first in found
        ]

    def _stored_texts(self, mids: Sequence[str]) -> dict[str, str]:
        """Return the stored text of these mids, as far as it is there; asked for in small portions, for each may be
        long."""
        texts: dict[str, str] = {}
        portion: list[str] = []
        for mid in mids:
            portion.append(mid)
            if len(portion) == _TEXTS_A_QUERY or sum(map(len, portion)) > _MID_CHARS_A_QUERY or mid == mids[-1]:
                texts.update(
                    self._clickhouse.rows(
                        "SELECT mid, raw FROM events WHERE mid IN {mids:Array(String)}", {"mids": portion}
                    )
                )
                portion = []
        return texts

    def _poison(self, record: StoreRecord, error: RecordError) -> dict[str, Any]:
        log.error(
            "store.record_parked",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            error=str(error),
        )
        return verdicts.poison_record(
            record.topic,
            record.partition,
            record.offset,
            record.append_time_ms,
            record.value,
            str(error),
            self._clock_ms(),
        )


def _oldest_ms(rows: pa.RecordBatch) -> int:
    oldest: int = pa.compute.min(rows.column("received_at")).cast(pa.int64()).as_py()
    return oldest
