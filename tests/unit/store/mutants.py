"""``store`` with one of its rules broken, to show that the state machine finds each of them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from processors.lease import Lease
from processors.store import storer as storer_module
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.decide import Decision, decide
from processors.store.dedupe.recent import ARRIVAL_COLUMNS
from processors.store.storer import Storer, StoreRecord
from processors.store.units import InsertUnit, event_units
from processors.store.writer import Writer
from tests.unit.store.drills import (
    hang_in_every_part,
    hang_with_a_mid_for_two_tables,
    make_the_topic_anew,
    stand_still_beyond_the_window,
)
from tests.unit.store.fake_engine import FakeStoredMids, arrival_of
from tests.unit.store.world import Sizes

_SIZES = Sizes()
_COLLIDING = replace(_SIZES, hash_bits=2)


@dataclass(frozen=True)
class Mutant:
    """A broken rule."""

    name: str
    breaks: Callable[[], Any]
    sizes: Sizes = _SIZES
    acks_first: bool = False
    run: Callable[[], None] | None = None
    """What finds it out, where random steps take long."""


def _units_with(token_of: Callable[[str], str]) -> Any:
    def units(*args: Any) -> list[InsertUnit]:
        return [replace(unit, token=token_of(unit.table)) for unit in event_units(*args)]

    return patch.object(storer_module, "event_units", units)


_store_block = Storer._store_block


def _store_block_by_offset(self: Storer, record: StoreRecord, *args: Any) -> None:
    """The token of a record's rows is made of its place in the log, which repeats when the topic is made anew."""
    with _units_with(lambda table: f"{record.partition}/{record.offset}/{table}"):
        _store_block(self, record, *args)


def _decide_and_mark(block: pa.RecordBatch, hashes: Any, of: int, cache: DedupeCache) -> Decision:
    decision = decide(block, hashes, of, cache)
    rows = pa.Table.from_batches([block.take(pa.array(decision.new))])
    cache.add(hashes[decision.new], rows.select(list(ARRIVAL_COLUMNS)))
    return decision


def _mark_before_insert() -> Any:
    return patch.multiple(storer_module, decide=_decide_and_mark)


def _load_nothing(self: DedupeCache, partitions: Any, of: int) -> None:
    self.partitions, self.of = frozenset(partitions), of


def _find_by_hash(self: FakeStoredMids, wanted: Any) -> dict[str, Any]:
    by_hash = {row["mid_hash"]: arrival_of(row) for row in self._engine.events()}
    return {mid: by_hash[mid_hash] for mid_hash, mid in wanted if mid_hash in by_hash}


def _halves_with_own_token(self: InsertUnit) -> list[InsertUnit]:
    middle = self.rows.num_rows // 2
    return [replace(self, rows=self.rows.slice(0, middle)), replace(self, rows=self.rows.slice(middle))]


def _halves_of_what_is_left(self: InsertUnit) -> list[InsertUnit]:
    """Halves by count, each under a token of its arrivals."""
    middle = self.rows.num_rows // 2
    return [
        replace(self, rows=part, token=f"{part.column('batch_id').to_pylist()}{part.column('event_index').to_pylist()}")
        for part in (self.rows.slice(0, middle), self.rows.slice(middle))
    ]


@contextmanager
def _halves_with_own_token_unchecked() -> Iterator[None]:
    """The writer looks for rows behind a known token, which hides this one: so without that."""
    with patch.object(InsertUnit, "halves", _halves_with_own_token), patch.object(Writer, "_make_sure", _never_missing):
        yield


def _never_missing(*_: Any) -> bool:
    return False


def _decide_by_the_moment(block: pa.RecordBatch, hashes: Any, of: int, cache: DedupeCache) -> Decision:
    """Every other time the last arrival of a mid in a block is the new one, not the first."""
    stored: Any = cache._stored
    if stored._engine.inserts.total() % 2:
        return decide(block, hashes, of, cache)
    last = block.num_rows - 1
    order = np.arange(block.num_rows)[::-1]
    decision = decide(block.take(pa.array(order)), hashes[order], of, cache)
    return Decision(
        np.sort(last - decision.new), [(last - row, first) for row, first in decision.duplicates], decision.replays
    )


MUTANTS = [
    Mutant("no token", lambda: _units_with(lambda _: "")),
    Mutant(
        "token from the offset",
        lambda: patch.object(Storer, "_store_block", _store_block_by_offset),
        run=make_the_topic_anew,
    ),
    Mutant("cache marked before the insert", _mark_before_insert),
    Mutant("acknowledged before the insert", nullcontext, acks_first=True),
    Mutant("cache not loaded at assignment", lambda: patch.object(DedupeCache, "load", _load_nothing)),
    Mutant("confirmed by hash only", lambda: patch.object(FakeStoredMids, "find", _find_by_hash), sizes=_COLLIDING),
    Mutant("halves under the record's token", _halves_with_own_token_unchecked),
    Mutant(
        "halves of what is left",
        lambda: patch.object(InsertUnit, "halves", _halves_of_what_is_left),
        run=hang_in_every_part,
    ),
    Mutant(
        "decision by the moment",
        lambda: patch.object(storer_module, "decide", _decide_by_the_moment),
        run=hang_with_a_mid_for_two_tables,
    ),
    Mutant("no lease", lambda: patch.object(Lease, "check", lambda _: None), run=stand_still_beyond_the_window),
    Mutant("rows behind a known token not looked for", lambda: patch.object(Writer, "_make_sure", _never_missing)),
]
