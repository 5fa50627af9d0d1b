"""Records at which a ``store`` worker failed before: a few rows at a time, so that the one at fault is known and
parked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from midstream.logs import get_logger
from processors.store import verdicts
from processors.store.dedupe.history import Hashes
from processors.store.dedupe.recent import Arrival

log = get_logger(__name__)

_ROWS_AT_ONCE = 64


class Trial(Protocol):
    """See :class:`processors.attempts.Trial`."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is to be parked."""

    @property
    def message(self) -> str:
        """What happened."""

    def at(self, index: int, size: int = 1) -> None:
        """Note that this row is under work, or so many from there on."""

    def is_suspected(self, start: int, end: int) -> bool:
        """Whether one of these rows is at fault."""

    def times_parked(self, index: int) -> int:
        """0: the row may be worked on."""


class Steps(Protocol):
    """What is done with a row, for trying it."""

    def find(self, wanted: list[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrivals of those mids that are stored."""

    def try_new(self, rows: pa.RecordBatch) -> None:
        """Take rows that are not stored through all steps but the insert."""

    def differs(self, block: pa.RecordBatch, found: list[tuple[int, Arrival]]) -> list[bool]:
        """Tell whether duplicates have other contents."""


@dataclass(slots=True)
class Outcome:
    """What a trial leaves of a block."""

    kept: list[int] = field(default_factory=list)
    """Rows to go on with."""
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)


def try_block(block: pa.RecordBatch, hashes: Hashes, trial: Trial, steps: Steps, now_ms: int) -> Outcome:
    """Try the rows of a block, some at a time and those under suspicion one by one; park those whose tries are used
    up, as far as they are not stored.

    A parked row whose mid another arrival stored is a duplicate; one that is stored itself is left out.
    """
    mids = block.column("mid").to_pylist()
    batch_ids, indices = block.column("batch_id").to_pylist(), block.column("event_index").to_pylist()
    stored = steps.find(list(zip(hashes.tolist(), mids, strict=True)))
    outcome = Outcome()
    to_try: list[int] = []
    for row, mid in enumerate(mids):
        first = stored.get(mid)
        is_replay = first is not None and (first.batch_id, first.event_index) == (batch_ids[row], indices[row])
        if not trial.is_whole and not trial.times_parked(row):
            outcome.kept.append(row)
            if not is_replay:
                to_try.append(row)
        elif first is None:
            trial.at(row)
            log.error("store.event_parked", batch_id=batch_ids[row], event_index=indices[row], reason=trial.message)
            outcome.rejects.append(verdicts.poison_event(block.slice(row, 1), trial.message, now_ms))
        elif not is_replay:
            trial.at(row)
            differs = block.column("content_hash")[row].as_py() != first.content_hash
            outcome.duplicates += verdicts.duplicate_rows(block, [(row, first)], [differs], now_ms)
    for start in range(0, len(to_try), _ROWS_AT_ONCE):
        rows = to_try[start : start + _ROWS_AT_ONCE]
        end = rows[-1] + 1
        for tried in [[row] for row in rows] if trial.is_suspected(rows[0], end) else [rows]:
            trial.at(tried[0], tried[-1] + 1 - tried[0])
            new = [row for row in tried if mids[row] not in stored]
            if new:
                steps.try_new(block.take(pa.array(new, pa.int64())))
            if len(new) < len(tried):
                steps.differs(block, [(row, stored[mids[row]]) for row in tried if mids[row] in stored])
    trial.at(-1)
    return outcome


def try_letters(letters: Sequence[verdicts.Letter], trial: Trial, now_ms: int) -> list[dict[str, Any]]:
    """Return the rows of ``rejects`` of dead letters, each tried by itself.

    Raises:
        RecordError: one cannot be read.
    """
    rows = []
    for index, letter in enumerate(letters):
        trial.at(index)
        if trial.is_whole or trial.times_parked(index):
            rows.append(verdicts.poison_letter(letter, trial.message, now_ms))
        else:
            row = verdicts.reject_row(letter, now_ms)
            verdicts.to_arrow([row], verdicts.REJECTS)
            rows.append(row)
    trial.at(-1)
    return rows
