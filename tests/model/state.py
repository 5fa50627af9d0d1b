"""The states of :mod:`tests.model.protocol`, its scenarios and its rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """An arrival of a mid in a block."""

    mid: str
    arrival: str
    table: str = "T"
    bad: bool = False
    """The engine refuses its data."""


class Insert(NamedTuple):
    """Rows for one table under one token."""

    table: str
    token: tuple[str, ...]
    rows: frozenset[Row]


class Worker(NamedTuple):
    """A worker's memory."""

    is_on: bool = False
    has_lease: bool = True
    """Whether it has never stood still for as long as Kafka waits for a worker."""
    cache: frozenset[tuple[str, str]] = frozenset()
    """Mid and arrival of what it knows to be stored."""
    batch: tuple[tuple[str, int, int], ...] = ()
    """Record, partition and offset of what it has taken and not finished."""
    todo: frozenset[Insert] | None = None
    """What is to be inserted of the first of them; None: not decided yet."""
    turn: int = 0
    """How often that record has been decided on."""
    new: frozenset[Row] = frozenset()
    doubles: tuple[tuple[Row, str], ...] = ()
    """What is a duplicate in that record, with the first arrival."""
    refused: frozenset[Row] = frozenset()
    finished: tuple[tuple[int, int], ...] = ()
    """Partition and offset of what it may acknowledge."""
    duplicates: frozenset[tuple[str, str]] = frozenset()
    rejects: frozenset[str] = frozenset()


OFF = Worker()
NOBODY = -1
Flight = tuple[int, Insert]
"""Who waits for the answer (nobody: the sender has given it up or is gone), and what is under way."""


class State(NamedTuple):
    """Everything."""

    logs: tuple[tuple[str, ...], ...]
    later: frozenset[str]
    """What ``validate`` may still append."""
    generation: int
    committed: tuple[int, ...]
    owners: tuple[int, ...]
    positions: tuple[int, ...]
    workers: tuple[Worker, ...]
    flights: frozenset[Flight]
    stored: frozenset[tuple[str, str]]
    windows: tuple[tuple[tuple[str, ...], ...], ...]
    """The tokens that each table remembers, the oldest first."""
    duplicates: frozenset[tuple[str, str]]
    rejects: frozenset[str]
    twice: str = ""
    """The mid that was stored twice."""


@dataclass(frozen=True)
class Rules:
    """The rules that exactness rests on; a mutant has one of them otherwise."""

    token: str = "value"
    """``value``: of the record's value; ``offset``: of its place in the log; ``none``."""
    marks_before: bool = False
    acks_before: bool = False
    loads: bool = True
    confirms_mid: bool = True
    halves: str = "aligned"
    """``aligned``: by the arrival alone; ``left``: of what is left of the record; ``own``: under the record's token."""
    is_deterministic: bool = True
    decides_again: bool = True
    """Whether what came after a refused row of its mid in a block is decided on again."""
    has_lease: bool = True
    is_in_time: bool = True
    """The assumption: what is under way is done with before the window has passed over its token."""


@dataclass(frozen=True)
class Scenario:
    """What is sent, and how it is sealed."""

    name: str
    records: dict[str, tuple[Row, ...]]
    first: tuple[str, ...]
    """Records in the log at the beginning."""
    later: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    """The log of the topic made anew."""
    partition_of: dict[str, int] = field(default_factory=dict)
    window: int = 2
    hash_of: Callable[[str], str] = lambda mid: mid
    with_resets: bool = True

    @property
    def partitions(self) -> int:
        return max(self.partition_of.values(), default=0) + 1

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(sorted({row.table for rows in self.records.values() for row in rows}))


def is_idle(worker: Worker) -> bool:
    return not worker.batch and not worker.finished


def with_part(parts: tuple, index: int, part: object) -> tuple:  # type: ignore[type-arg]
    """Return ``parts`` with another one at ``index``."""
    return (*parts[:index], part, *parts[index + 1 :])


def put(state: State, number: int, worker: Worker) -> State:
    return state._replace(workers=with_part(state.workers, number, worker))


def let_idle_forget(state: State) -> State:
    """Nobody is assigned: who has nothing under way remembers nothing."""
    return state._replace(workers=tuple(OFF if is_idle(worker) else worker for worker in state.workers))


def kill(state: State, number: int) -> State:
    """The process is gone; what it sent goes on by itself."""
    return state._replace(
        workers=with_part(state.workers, number, OFF),
        owners=tuple(NOBODY if owner == number else owner for owner in state.owners),
        positions=tuple(
            0 if owner == number else position for owner, position in zip(state.owners, state.positions, strict=True)
        ),
        flights=let_drift(state.flights, *(flight for flight in state.flights if flight[0] == number)),
    )


def let_drift(flights: frozenset[Flight], *given_up: Flight) -> frozenset[Flight]:
    """Leave these to themselves: they may still arrive. What will be refused has no effect any more."""
    adrift = {(NOBODY, insert) for _, insert in given_up if not any(row.bad for row in insert.rows)}
    return (flights - set(given_up)) | adrift


def canonical(state: State) -> State:
    """Return one of the two states that differ in the workers' numbers only."""
    first, second = map(hash, state.workers)
    if first < second:
        return state
    renamed = {0: 1, 1: 0, NOBODY: NOBODY}
    swapped = state._replace(
        workers=state.workers[::-1],
        owners=tuple(renamed[owner] for owner in state.owners),
        flights=frozenset((renamed[sender], insert) for sender, insert in state.flights),
    )
    return swapped if first > second else min(state, swapped, key=hash)


def said(insert: Insert) -> str:
    rows = ", ".join(sorted(row.arrival for row in insert.rows))
    return f"insert({insert.table}: {rows})"
