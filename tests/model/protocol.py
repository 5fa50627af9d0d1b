"""The protocol of ``store``, small enough to look at every state of it.

Who takes part: ``validate``, which appends records to partitions; two workers; the engine with its tables; the network,
which delays and loses. Anything may happen at any moment and as often as it likes: a worker dies, stands still, is
slow; partitions are given away while it works; an insert or its answer is lost, is repeated while the first try is
still on its way, or arrives when its sender is long gone; the offsets are set to the beginning; ``validate`` seals a
batch again into another block; the topic is deleted and made anew. The space is finite by itself, since only what is
new is ever stored.

**The invariant**, in every state:

(I1) A mid has at most one row in all tables together.
(I2) No arrival has two verdicts: what is stored is neither a duplicate nor rejected, and the first arrival that a
     duplicate names is the stored one. When all is acknowledged, each arrival has one.
(I3) A record that is acknowledged has all its effects in ClickHouse: each of its arrivals has a verdict.
(I4) What a worker's cache holds is stored.

**What it rests on** (:meth:`Protocol._may_forget`, and the lease): a table's last ``window`` tokens are remembered, and
whoever runs is done with a token before the window has passed over it: with an insert under way, with a worker's batch,
with what a former owner still stored after the present one loaded its cache. A process that stood still for longer
finds its lease lost before it sends anything more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tests.model.state import (
    NOBODY,
    OFF,
    Insert,
    Row,
    Rules,
    Scenario,
    State,
    Worker,
    is_idle,
    kill,
    let_drift,
    let_idle_forget,
    put,
    said,
    with_part,
)


class Protocol:
    """The steps of a scenario under rules."""

    def __init__(self, scenario: Scenario, rules: Rules | None = None) -> None:
        self._scenario = scenario
        self._rules = rules or Rules()
        every = [(place, row) for rows in scenario.records.values() for place, row in enumerate(rows)]
        self._place = {row.arrival: place for place, row in every}
        self._mid_of = {row.arrival: row.mid for _, row in every}

    def initial(self) -> State:
        """Return the first state: nobody is assigned, nothing is stored."""
        partitions = self._scenario.partitions
        return State(
            logs=self._spread(self._scenario.first),
            later=frozenset(self._scenario.later),
            generation=0,
            committed=(0,) * partitions,
            owners=(NOBODY,) * partitions,
            positions=(0,) * partitions,
            workers=(OFF, OFF),
            flights=frozenset(),
            stored=frozenset(),
            windows=((),) * len(self._scenario.tables),
            duplicates=frozenset(),
            rejects=frozenset(),
        )

    def _spread(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        of = self._scenario.partition_of
        return tuple(
            tuple(name for name in names if of.get(name, 0) == partition)
            for partition in range(self._scenario.partitions)
        )

    # The invariant.

    def violation(self, state: State) -> str:
        """Return which part of the invariant does not hold, "" when all do."""
        if state.twice:
            return f"I1: {state.twice} is stored twice"
        arrivals = {arrival for _, arrival in state.stored}
        doubles = {arrival for arrival, _ in state.duplicates}
        if wrong := arrivals & (doubles | state.rejects):
            return f"I2: {sorted(wrong)} stored and called something else"
        for arrival, first in state.duplicates:
            if (self._mid_of[arrival], first) not in state.stored:
                return f"I2: {arrival} is called a duplicate of {first}, which does not store its mid"
        known = arrivals | doubles | state.rejects
        for log, committed in zip(state.logs, state.committed, strict=True):
            for name in log[:committed]:
                for row in self._scenario.records[name]:
                    if row.arrival not in known:
                        return f"I3: {name} is acknowledged and {row.arrival} has no verdict"
        for number, worker in enumerate(state.workers):
            if wrong := {arrival for _, arrival in worker.cache} - arrivals:
                return f"I4: the cache of worker {number} holds {sorted(wrong)}"
        return ""

    def is_done(self, state: State) -> bool:
        """Tell whether everything is acknowledged, so that it may all end here."""
        return state.committed == tuple(len(log) for log in state.logs) and not state.later

    # The steps.

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield each step that may be taken, with its name."""
        yield from self._log_steps(state)
        yield from self._rebalances(state)
        yield from self._flight_steps(state)
        for number, worker in enumerate(state.workers):
            if worker.is_on:
                yield from self._worker_steps(state, number)

    def _log_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name in sorted(state.later):
            partition = self._scenario.partition_of.get(name, 0)
            log = (*state.logs[partition], name)
            logs = with_part(state.logs, partition, log)
            yield f"validate appends {name}", state._replace(logs=logs, later=state.later - {name})
        nobody = (NOBODY,) * len(state.owners)
        nothing = (0,) * len(state.owners)
        if self._scenario.with_resets and any(state.committed):
            yield (
                "the offsets are set to the beginning",
                let_idle_forget(state._replace(committed=nothing, owners=nobody, positions=nothing)),
            )
        if self._scenario.anew and state.generation == 0 and self.is_done(state):
            yield (
                "the topic is made anew",
                let_idle_forget(
                    state._replace(
                        logs=self._spread(self._scenario.anew),
                        generation=1,
                        committed=nothing,
                        owners=nobody,
                        positions=nothing,
                    )
                ),
            )

    def _rebalances(self, state: State) -> Iterator[tuple[str, State]]:
        """Partitions go to workers that have nothing under way (one that has finishes it before it takes any)."""
        idle = [n for n, worker in enumerate(state.workers) if is_idle(worker)]
        for owners in product(idle, repeat=len(state.owners)):
            workers = []
            for number, worker in enumerate(state.workers):
                mine = {p for p, owner in enumerate(owners) if owner == number}
                if mine:
                    workers.append(Worker(is_on=True, cache=self._load(state, mine)))
                else:
                    workers.append(OFF if is_idle(worker) else worker)
            yield (
                f"partitions go to workers {owners}",
                state._replace(owners=owners, positions=state.committed, workers=tuple(workers)),
            )

    def _load(self, state: State, partitions: set[int]) -> frozenset[tuple[str, str]]:
        if not self._rules.loads:
            return frozenset()
        homes = {
            row.mid: self._scenario.partition_of.get(name, 0)
            for name, rows in self._scenario.records.items()
            for row in rows
        }
        return frozenset(pair for pair in state.stored if homes[pair[0]] in partitions)

    def _worker_steps(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        worker = state.workers[number]
        if not is_idle(worker):
            # One that has stood still for too long gives up when it wakes: it might as well have died.
            yield f"worker {number} dies", kill(state, number)
            if worker.has_lease and not self._rules.has_lease:
                outlived = worker._replace(has_lease=False)
                yield f"worker {number} stands still for too long", put(state, number, outlived)
        if not worker.batch and not worker.finished:
            yield from self._takes(state, number)
        elif worker.batch and worker.todo is None:
            yield from self._decides(state, number)
        elif worker.todo:
            for table in {insert.table for insert in worker.todo}:  # side by side; parts of one, one after the other
                insert = min((one for one in worker.todo if one.table == table), key=lambda one: one.token)
                if (number, insert) not in state.flights:
                    yield (
                        f"worker {number} sends {said(insert)}",
                        state._replace(flights=state.flights | {(number, insert)}),
                    )
        elif worker.duplicates or worker.rejects:
            yield (
                f"worker {number} writes verdicts",
                put(
                    state._replace(
                        duplicates=state.duplicates | worker.duplicates, rejects=state.rejects | worker.rejects
                    ),
                    number,
                    worker._replace(duplicates=frozenset(), rejects=frozenset()),
                ),
            )
        elif not worker.batch:
            yield f"worker {number} acknowledges", self._acknowledged(state, number)

    def _takes(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        worker = state.workers[number]
        available = tuple(
            (state.logs[p][offset], p, offset)
            for p, owner in enumerate(state.owners)
            if owner == number
            for offset in range(state.positions[p], len(state.logs[p]))
        )
        for count in {1, len(available)} if available else ():
            batch = available[:count]
            positions = list(state.positions)
            for _, partition, offset in batch:
                positions[partition] = offset + 1
            following = put(state, number, worker._replace(batch=batch))._replace(positions=tuple(positions))
            if self._rules.acks_before:
                following = following._replace(committed=tuple(map(max, state.committed, positions)))
            yield f"worker {number} takes {[name for name, _, _ in batch]}", following

    def _decides(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        name = state.workers[number].batch[0][0]
        rows = self._scenario.records[name]
        yield f"worker {number} decides on {name}", self._decided(state, number, rows, 0)
        if not self._rules.is_deterministic:
            yield f"worker {number} decides on {name} backwards", self._decided(state, number, rows[::-1], 0)

    def _decided(self, state: State, number: int, rows: tuple[Row, ...], turn: int) -> State:
        worker = state.workers[number]
        first_of = self._confirmed(state, worker, rows)
        new: list[Row] = []
        doubles: list[tuple[Row, str]] = []
        for row in rows:
            first = first_of.get(row.mid)
            if first is None:
                first_of[row.mid] = row.arrival
                new.append(row)
            elif first != row.arrival:  # else it is a replay
                doubles.append((row, first))
        token = self._token(worker.batch[0], turn)
        todo = frozenset(
            Insert(table, token, frozenset(row for row in new if row.table == table))
            for table in {row.table for row in new}
        )
        cache = worker.cache
        if self._rules.marks_before:
            cache |= {(row.mid, row.arrival) for row in new}
        decided = worker._replace(
            todo=todo, turn=turn, new=frozenset(new), doubles=tuple(doubles), refused=frozenset(), cache=cache
        )
        return self._settled(put(state, number, decided), number)

    def _confirmed(self, state: State, worker: Worker, rows: tuple[Row, ...]) -> dict[str, str]:
        """Return the stored arrivals of the mids of a block: asked for where the cache's hashes say "maybe"."""
        hash_of = self._scenario.hash_of
        hashes = {hash_of(mid): arrival for mid, arrival in worker.cache}
        held, stored = dict(worker.cache), dict(state.stored)
        found: dict[str, str] = {}
        for mid in {row.mid for row in rows if hash_of(row.mid) in hashes}:
            if not self._rules.confirms_mid:
                found[mid] = hashes[hash_of(mid)]
            elif mid in held or mid in stored:
                found[mid] = held.get(mid) or stored[mid]
        return found

    def _token(self, taken: tuple[str, int, int], turn: int) -> tuple[str, ...]:
        name, partition, offset = taken
        root = {"value": name, "offset": f"{partition}/{offset}", "none": ""}[self._rules.token]
        return (root, *["again"] * turn)

    def _settled(self, state: State, number: int) -> State:
        """Move on when nothing of the record under way is left to insert."""
        worker = state.workers[number]
        if worker.todo:
            return state
        refused = {row.arrival for row in worker.refused}
        if not self._rules.decides_again:
            worker = worker._replace(rejects=worker.rejects | refused)
            refused = set()
        again = tuple(row for row, first in worker.doubles if first in refused)
        doubles = {(row.arrival, first) for row, first in worker.doubles if first not in refused}
        worker = worker._replace(
            cache=worker.cache | {(row.mid, row.arrival) for row in worker.new - worker.refused},
            duplicates=worker.duplicates | doubles,
            rejects=worker.rejects | refused,
        )
        if again:
            return self._decided(put(state, number, worker), number, again, worker.turn + 1)
        (_, partition, offset), *rest = worker.batch
        worker = worker._replace(
            batch=tuple(rest),
            finished=(*worker.finished, (partition, offset)),
            todo=None,
            turn=0,
            new=frozenset(),
            doubles=(),
            refused=frozenset(),
        )
        return put(state, number, worker)

    def _acknowledged(self, state: State, number: int) -> State:
        worker = state.workers[number]
        committed = list(state.committed)
        for partition, offset in worker.finished:
            if state.owners[partition] == number:  # Kafka ignores who has lost the partition
                committed[partition] = max(committed[partition], offset + 1)
        worker = worker._replace(finished=()) if number in state.owners else OFF
        return put(state, number, worker)._replace(committed=tuple(committed))

    # The network and the engine.

    def _flight_steps(self, state: State) -> Iterator[tuple[str, State]]:
        for flight in state.flights:
            sender, insert = flight
            landed = state._replace(flights=state.flights - {flight})
            if sender != NOBODY:
                waiting = state._replace(flights=let_drift(state.flights, flight))
                yield f"worker {sender} waits no longer for {said(insert)}", waiting
            if any(row.bad for row in insert.rows):
                yield f"{said(insert)} is refused", self._refused(landed, sender, insert)
            elif (taken := self._inserted(landed, insert)) is not None:
                yield f"{said(insert)} arrives", self._answered(taken, sender, insert, frozenset())

    def _inserted(self, state: State, insert: Insert) -> State | None:
        """Insert; None when the window would forget what it must not yet."""
        if self._rules.token != "none":
            table = self._scenario.tables.index(insert.table)
            tokens = state.windows[table]
            if insert.token in tokens:
                return state
            tokens = (*tokens, insert.token)
            if len(tokens) > self._scenario.window:
                if not self._may_forget(state, insert.table, tokens[0]):
                    return None
                tokens = tokens[1:]
            state = state._replace(windows=with_part(state.windows, table, tokens))
        mids = {mid for mid, _ in state.stored}
        twice = next((row.mid for row in insert.rows if row.mid in mids), "")
        return state._replace(stored=state.stored | {(row.mid, row.arrival) for row in insert.rows}, twice=twice)

    def _may_forget(self, state: State, table: str, token: tuple[str, ...]) -> bool:
        """Tell whether nobody who runs may still insert under this token."""
        if not self._rules.is_in_time:
            return True
        if any(insert.table == table and insert.token == token for _, insert in state.flights):
            return False
        under_way = [taken for worker in state.workers if worker.has_lease for taken in worker.batch]
        return all(self._token(taken, 0)[0] != token[0] for taken in (*under_way, *self._stored_unseen(state)))

    def _stored_unseen(self, state: State) -> Iterator[tuple[str, int, int]]:
        """Yield the records of which a former owner has stored what the present one's cache lacks."""
        for partition, (owner, position) in enumerate(zip(state.owners, state.positions, strict=True)):
            if owner != NOBODY:
                unseen = state.stored - state.workers[owner].cache
                for offset in range(position, len(state.logs[partition])):
                    name = state.logs[partition][offset]
                    if any((row.mid, row.arrival) in unseen for row in self._scenario.records[name]):
                        yield name, partition, offset

    def _refused(self, state: State, sender: int, insert: Insert) -> State:
        if sender == NOBODY:
            return state
        is_one = len(insert.rows) == 1
        parts = () if is_one else self._halves(insert)
        return self._answered(state, sender, insert, frozenset(parts), insert.rows if is_one else frozenset())

    def _halves(self, insert: Insert) -> Iterator[Insert]:
        depth = len(insert.token)
        ordered = sorted(insert.rows, key=lambda row: self._place[row.arrival])
        middle = len(ordered) // 2
        for side in (0, 1):
            if self._rules.halves == "aligned":
                rows = [row for row in ordered if (self._place[row.arrival] >> (depth - 1)) & 1 == side]
                token = (*insert.token, str(side))
            else:
                rows = ordered[middle:] if side else ordered[:middle]
                own = self._rules.halves == "own"
                token = insert.token if own else (insert.token[0], *(row.arrival for row in rows))
            if rows:
                yield Insert(insert.table, token, frozenset(rows))

    def _answered(
        self,
        state: State,
        sender: int,
        insert: Insert,
        parts: frozenset[Insert],
        refused: frozenset[Row] = frozenset(),
    ) -> State:
        if sender == NOBODY:
            return state
        worker = state.workers[sender]
        assert worker.todo is not None
        worker = worker._replace(todo=(worker.todo - {insert}) | parts, refused=worker.refused | refused)
        return self._settled(put(state, sender, worker), sender)
