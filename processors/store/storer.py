"""Storing records: the one place where the steps of ``store`` meet ClickHouse. Runs in a thread; knows nothing of
Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from midstream import topics
from midstream.clickhouse.client import ClickHouse
from midstream.columns import VALID
from midstream.logs import get_logger
from midstream.metrics import DUPLICATE_EVENTS, POISON_RECORDS, REJECTED_EVENTS, REPLAYED_EVENTS, VISIBLE_SECONDS
from midstream.records import RecordError
from processors.attempts import Attempts, Trial
from processors.lease import Lease
from processors.store import verdicts
from processors.store.block import mid_hashes, other_columns, read_block
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.decide import decide
from processors.store.dedupe.history import Hashes
from processors.store.dedupe.recent import ARRIVAL_COLUMNS, Arrival
from processors.store.dedupe.stored import StoredMids
from processors.store.denormalise import COLUMNS, DENORMALISED_FROM, denormalise
from processors.store.dimension_cache import DimensionCache
from processors.store.erased import ErasedUsers, replace_erased, replace_in_reject
from processors.store.same_content import same_content
from processors.store.table_columns import TableColumns
from processors.store.trials import try_block, try_letters
from processors.store.units import event_units
from processors.store.writer import FindsStored, Writer

log = get_logger(__name__)

_MS = pa.timestamp("ms", tz="UTC")
_EXTRA = ("stored_at", *COLUMNS)
_LOOKED_AT = [*ARRIVAL_COLUMNS, *DENORMALISED_FROM]
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


@dataclass(frozen=True, slots=True)
class _Turn:
    """What became of rows of a block."""

    duplicates: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    counts: tuple[int, int, int]
    """New rows, duplicates, replays."""
    again: list[int]
    """Rows whose mid came before them in the block, in a row that ClickHouse refused: they are duplicates of nothing
    that is stored, and are decided on again."""


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
        attempts: Attempts | None = None,
        clock_ms: Callable[[], int] = now_ms,
        log_block: Callable[[dict[str, Any]], None] = lambda _: None,
        erased: ErasedUsers | None = None,
    ) -> None:
        self._clickhouse = clickhouse
        self._dimensions = dimensions
        self._clock_ms = clock_ms
        self._stored = stored or StoredMids(clickhouse)
        self._writer = Writer(clickhouse, self._stored, lease, insert_tries, clock_ms)
        attempts = attempts or Attempts.in_memory()
        self.valid_tries = attempts.lane(topics.VALID.name)
        self.dead_tries = attempts.lane(topics.DEAD.name)
        self._log_block = log_block
        self._table_columns = TableColumns(clickhouse)
        self._erased = ErasedUsers(lambda: None, 0) if erased is None else erased
        # The tables of one record are inserted side by side: an insert is mostly waiting.
        self._inserts = ThreadPoolExecutor(max_workers=4, thread_name_prefix="insert")

    def check_tables(self) -> None:
        """Refuse to begin before the tables have all columns that this version writes.

        Raises:
            ClickHouseError: they have not.
        """
        self._table_columns.check((*VALID.names, *_EXTRA))

    def store_valid(self, records: Sequence[StoreRecord], cache: DedupeCache) -> None:
        """Store records of ``telemetry.valid``, in order.

        Raises:
            ClickHouseError: the environment does not let it; nothing of the record under way may be acknowledged.
            LeaseLostError: this worker stood still too long.
        """
        for part in self.valid_tries.parts(records):
            self._store_part(part, cache)

    def _store_part(self, records: Sequence[StoreRecord], cache: DedupeCache) -> None:
        duplicates: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        for record in records:
            trial = self.valid_tries.begin(record)
            self._store_block(record, cache, duplicates, rejects, trial)
        self.valid_tries.joint()
        self._writer.write_verdicts(verdicts.DUPLICATE_TABLE, verdicts.DUPLICATES, duplicates)
        DUPLICATE_EVENTS.inc(len(duplicates))
        self._insert_rejects(rejects)
        self.valid_tries.passed()

    def store_dead(self, records: Sequence[StoreRecord]) -> None:
        """Store records of ``telemetry.dead`` in ``rejects``. Raises as :meth:`store_valid`."""
        for part in self.dead_tries.parts(records):
            self._bury_part(part)

    def _bury_part(self, records: Sequence[StoreRecord]) -> None:
        rows: list[dict[str, Any]] = []
        for record in records:
            trial = self.dead_tries.begin(record)
            rows += self._reject_rows(record, trial)
            if sum(len(row["raw"]) for row in rows) > _MAX_REJECTS_BYTES:
                self.dead_tries.joint()
                self._insert_rejects(rows)
                rows = []
        self.dead_tries.joint()
        self._insert_rejects(rows)
        self.dead_tries.passed()

    def _reject_rows(self, record: StoreRecord, trial: Trial | None) -> list[dict[str, Any]]:
        return [replace_in_reject(row, self._erased) for row in self._read_rejects(record, trial)]

    def _read_rejects(self, record: StoreRecord, trial: Trial | None) -> list[dict[str, Any]]:
        try:
            if trial is None:
                return verdicts.reject_rows(record.value, self._clock_ms())
            _count_poison(trial)
            if trial.is_whole and trial.is_unreadable:
                return [self._poison(record, trial.message)]
            return try_letters(verdicts.read_letters(record.value), trial, self._clock_ms())
        except RecordError as error:
            return [self._poison(record, str(error))]

    def _store_block(
        self,
        record: StoreRecord,
        cache: DedupeCache,
        duplicates: list[dict[str, Any]],
        rejects: list[dict[str, Any]],
        trial: Trial | None,
    ) -> None:
        if trial is not None:
            _count_poison(trial)
            if trial.is_whole and trial.is_unreadable:
                rejects.append(self._poison(record, trial.message))
                return
        try:
            block, partitions = read_block(record.value)
        except RecordError as error:
            rejects.append(self._poison(record, str(error)))
            return
        if others := other_columns(block):
            self._table_columns.check(others)
        block = replace_erased(block, self._erased)
        if trial is not None:
            outcome = try_block(block, mid_hashes(block), trial, self, self._clock_ms())
            duplicates += outcome.duplicates
            rejects += outcome.rejects
            if not outcome.kept:
                return
            block = block.take(pa.array(outcome.kept, pa.int64()))
        hashes = mid_hashes(block)
        tried_before = trial is not None or cache.may_have_been_tried(record.partition, record.offset)
        stored_at_ms = self._clock_ms()
        counts = [0, 0, 0]
        rows, seed = block, record.value
        while rows.num_rows:
            turn = self._store_rows(tried_before, seed, rows, hashes, partitions, cache, stored_at_ms)
            duplicates += turn.duplicates
            rejects += turn.rejects
            counts = [sum(pair) for pair in zip(counts, turn.counts, strict=True)]
            rows, hashes, seed = rows.take(pa.array(turn.again, pa.int64())), hashes[turn.again], seed + b"/again"
        new_rows, duplicate_rows, replayed_rows = counts
        REPLAYED_EVENTS.inc(replayed_rows)
        self._log_block(
            {
                "partition": record.partition,
                "offset": record.offset,
                "partitions": partitions,
                "stored_at": stored_at_ms,
                "visible_at": self._clock_ms() if new_rows else stored_at_ms,
                "rows": block.num_rows,
                "new_rows": new_rows,
                "duplicate_rows": duplicate_rows,
                "replayed_rows": replayed_rows,
            }
        )

    def _store_rows(
        self,
        tried_before: bool,
        seed: bytes,
        block: pa.RecordBatch,
        hashes: Hashes,
        partitions: int,
        cache: DedupeCache,
        stored_at_ms: int,
    ) -> _Turn:
        """Store what is new of a block's rows, under tokens made of ``seed``; all carry the block's ``stored_at_ms``,
        by which ``block_rows`` says when they became visible."""
        decision = decide(block, hashes, partitions, cache)
        all_new = len(decision.new) == block.num_rows
        new = block.select(_LOOKED_AT)
        new = new if all_new else new.take(pa.array(decision.new))
        rejects: list[dict[str, Any]] = []
        if new.num_rows:
            stored_at = pa.array(np.full(new.num_rows, stored_at_ms), _MS)
            extra = [stored_at, *denormalise(new, self._dimensions)]
            units = event_units(block, None if all_new else decision.new, _EXTRA, extra, seed)
            write = partial(self._writer.write_events, tried_before=tried_before)
            with self.valid_tries.waiting():
                refused = list(self._inserts.map(self.valid_tries.helping(write), units))
            rejects = [letter for letters in refused for letter in letters]
            parked = {(letter["batch_id"], letter["event_index"]) for letter in rejects}
            self._remember(cache, new, hashes if all_new else hashes[decision.new], parked)
            VISIBLE_SECONDS.observe((self._clock_ms() - _oldest_ms(new)) / 1000)
        found, again = decision.duplicates, []
        if rejects:
            found = [(row, first) for row, first in found if (first.batch_id, first.event_index) not in parked]
            again = [row for row, first in decision.duplicates if (first.batch_id, first.event_index) in parked]
        duplicates: list[dict[str, Any]] = []
        if found:
            duplicates = verdicts.duplicate_rows(block, found, self.differs(block, found), self._clock_ms())
        return _Turn(duplicates, rejects, (new.num_rows, len(found), decision.replays), again)

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

    def find(self, wanted: list[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrivals of those mids, given with their hashes, that are stored."""
        return self._stored.find(wanted)

    def try_new(self, rows: pa.RecordBatch) -> None:
        """Take rows that are not stored through all steps but the insert."""
        stored_at = pa.array(np.full(rows.num_rows, self._clock_ms()), _MS)
        for unit in event_units(rows, None, _EXTRA, [stored_at, *denormalise(rows, self._dimensions)], b""):
            unit.body()

    def differs(self, block: pa.RecordBatch, found: list[tuple[int, Arrival]]) -> list[bool]:
        """Tell for each duplicate whether its content is another than the stored event's; spacing and order of keys
        do not count."""
        contents, mids, raws = block.column("content_hash"), block.column("mid"), block.column("raw")
        by_mid: dict[str, list[int]] = {}
        for place, (row, first) in enumerate(found):
            if contents[row].as_py() != first.content_hash:
                by_mid.setdefault(mids[row].as_py(), []).append(place)
        received_ms = {mid: found[places[0]][1].received_at_ms for mid, places in by_mid.items()}
        result = [False] * len(found)
        # In the order of receipt, as parts are: by the times, ClickHouse leaves out all parts but few.
        for portion in _portions(sorted(by_mid, key=received_ms.__getitem__)):
            times = ", ".join(f"fromUnixTimestamp64Milli({ms}, 'UTC')" for ms in {received_ms[mid] for mid in portion})
            stored = dict(
                self._clickhouse.rows(
                    f"SELECT mid, raw FROM events WHERE mid IN {{mids:Array(String)}} AND received_at IN ({times})",  # noqa: S608 - numbers
                    {"mids": list(portion)},
                )
            )
            for mid in portion:
                for place in by_mid[mid]:
                    result[place] = not same_content(stored.get(mid, ""), raws[found[place][0]].as_py())
        return result

    def _poison(self, record: StoreRecord, reason: str) -> dict[str, Any]:
        log.error(
            "store.record_parked",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            error=reason,
        )
        return verdicts.poison_record(
            record.topic,
            record.partition,
            record.offset,
            record.append_time_ms,
            record.value,
            reason,
            self._clock_ms(),
        )


def _portions(mids: Iterable[str]) -> Iterator[list[str]]:
    """Split mids whose stored texts are asked for: each text may be long, and is not kept beyond its portion."""
    portion: list[str] = []
    for mid in mids:
        portion.append(mid)
        if len(portion) == _TEXTS_A_QUERY or sum(map(len, portion)) > _MID_CHARS_A_QUERY:
            yield portion
            portion = []
    if portion:
        yield portion


def _count_poison(trial: Trial) -> None:
    if trial.has_parked:
        POISON_RECORDS.labels("store").inc()


def _oldest_ms(rows: pa.RecordBatch) -> int:
    oldest: int = pa.compute.min(rows.column("received_at")).cast(pa.int64()).as_py()
    return oldest
