"""Records, and workers that die of them."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from processors.attempts import Attempts, Lane
from processors.attempts.file import FILE_BYTES

GROUP = "g"
TRIES = 3


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    value: bytes = b"v"


def live_again(attempts: Attempts) -> Attempts:
    """Return what the next life of the process finds in the file."""
    memory = mmap.mmap(-1, FILE_BYTES)
    memory[:] = attempts._memory[:]
    return Attempts(memory, TRIES)


def lane(attempts: Attempts) -> Lane:
    return attempts.lane("t")


def die(attempts: Attempts, record: Record, index: int | None = None) -> Attempts:
    """Work on a record and die of it, at an event if one is given."""
    one = lane(attempts)
    one.begin(record)
    if index is not None:
        one.at(index)
    return live_again(attempts)


def fresh() -> Attempts:
    return Attempts.in_memory(TRIES)
