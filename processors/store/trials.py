"""Records at which a ``store`` worker failed before: row by row, so that the one at fault is known, and parked."""

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


class Trial(Protocol):
    """See :class:`processors.attempts.Trial`."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is to be parked."""

    @property
    def message(self) -> str:
        """What happened."""

    def at(self, index: int) -> None:
        """Note that this row is under work."""

    def times_parked(self, index: int) -> int:
        """0: the row may be worked on."""


class Steps(Protocol):
    """What is done with a row, for trying it."""

    def find(self, wanted: list[tuple[int, str]]) -> dict[str, Arrival]:
        """Return the arrivals of those mids that are stored."""

    def try_new(self, row: pa.RecordBatch) -> None:
        """Take a row that is not stored through all steps but the insert."""

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
    """Try each row of a block by itself, and park those whose tries are used up, as far as they are not stored.

    A parked row whose mid another arrival stored is a duplicate; one that is stored itself is left out.
    """
    mids = block.column("mid").to_pylist()
    batch_ids, indices = block.column("batch_id").to_pylist(), block.column("event_index").to_pylist()
    stored = steps.find(list(zip(hashes.tolist(), mids, strict=True)))
    outcome = Outcome()
    for row, mid in enumerate(mids):
        trial.at(row)
        first = stored.get(mid)
        parked = trial.is_whole or trial.times_parked(row)
        if first is not None and (first.batch_id, first.event_index) == (batch_ids[row], indices[row]):
            if not parked:
                outcome.kept.append(row)  # a replay, counted as one
        elif not parked:
            if first is None:
                steps.try_new(block.slice(row, 1))
            else:
                steps.differs(block, [(row, first)])
            outcome.kept.append(row)
        elif first is None:
            log.error("store.event_parked", batch_id=batch_ids[row], event_index=indices[row], reason=trial.message)
            outcome.rejects.append(verdicts.poison_event(block.slice(row, 1), trial.message, now_ms))
        else:
            differs = block.column("content_hash")[row].as_py() != first.content_hash
            outcome.duplicates += verdicts.duplicate_rows(block, [(row, first)], [differs], now_ms)
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
