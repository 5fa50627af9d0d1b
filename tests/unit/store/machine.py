"""The state machine that drives a :class:`tests.unit.store.world.World` in every way that hypothesis can think of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import capture_logs

from tests.unit.store.fake_engine import Outcome
from tests.unit.store.world import Sent, Sizes, Violation, World


def _batch(first: int) -> st.SearchStrategy[list[Sent]]:
    """A batch of few mids, so that some come twice in it, and some in other batches."""
    events = st.builds(
        Sent,
        st.integers(first, first + 4).map("m{}".format),
        st.sampled_from(["INTERACT", "LOG"]),
        st.integers(0, 1),
        st.sampled_from([False, False, False, True]),
    )
    return st.lists(events, min_size=1, max_size=8)


_batches = st.lists(st.integers(0, 25).flatmap(_batch), min_size=1, max_size=2)
_choices = st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 0), (2, 1), (0, 1, 2)])
_workers = st.integers(0, 2)
_counts = st.integers(1, 3)
_ends = st.sampled_from([one for one in Outcome if one not in (Outcome.HOLD_SENT, Outcome.HOLD_UNSENT)])


class StoreMachine(RuleBasedStateMachine):
    """Random clients, faults and orders; :meth:`World.check` after every step, every verdict at the end."""

    sizes = Sizes()
    acks_first = False

    def __init__(self) -> None:
        super().__init__()
        self._logs = capture_logs()
        self._logs.__enter__()
        self.world = World(self.sizes, acks_first=self.acks_first)
        self._is_broken = False

    @rule(batches=_batches)
    def send(self, batches: list[list[Sent]]) -> None:
        for events in batches:
            self.world.send(events)

    @precondition(lambda self: self.world.batches)
    @rule(data=st.data(), new=st.integers(0, 4), seal_rows=st.integers(1, 12))
    def seal(self, data: Any, new: int, seal_rows: int) -> None:
        """New batches, and such as may have been sealed before, in any order and in one round."""
        numbers = self.world.unsealed[-new:] if new else []
        numbers += data.draw(st.lists(st.integers(0, len(self.world.batches) - 1), max_size=2))
        self.world.seal(data.draw(st.permutations(sorted(set(numbers)))), seal_rows)

    @rule(batches=_batches, seal_rows=st.integers(4, 20))
    def send_and_seal(self, batches: list[list[Sent]], seal_rows: int) -> None:
        for events in batches:
            self.world.send(events)
        self.world.seal(self.world.unsealed, seal_rows)

    @precondition(lambda self: self.world.waiting() or self.world.standing())
    @rule(choice=_choices)
    def rebalance(self, choice: tuple[int, ...]) -> None:
        self.world.rebalance(choice)

    @precondition(lambda self: self.world.waiting())
    @rule(worker=_workers, count=_counts, is_reversed=st.booleans())
    def process(self, worker: int, count: int, is_reversed: bool) -> None:
        self.world.process(worker, count, (), (0,), is_reversed=is_reversed, again=False)

    @precondition(lambda self: self.world.waiting())
    @rule(
        worker=_workers,
        count=_counts,
        plan=st.lists(_ends, min_size=1, max_size=6),
        choice=_choices,
        is_reversed=st.booleans(),
        again=st.booleans(),
    )
    def process_with_faults(
        self, worker: int, count: int, plan: list[Outcome], choice: tuple[int, ...], is_reversed: bool, again: bool
    ) -> None:
        self.world.process(worker, count, plan, choice, is_reversed=is_reversed, again=again)

    @precondition(lambda self: self.world.waiting())
    @rule(
        worker=_workers,
        count=_counts,
        inserts=st.integers(0, 5),
        choice=_choices,
        is_sent=st.booleans(),
        is_ticking=st.booleans(),
        others=st.integers(0, 4),
        pass_by=st.sampled_from([0, 40]),
    )
    def freeze(
        self,
        worker: int,
        count: int,
        inserts: int,
        choice: tuple[int, ...],
        is_sent: bool,
        is_ticking: bool,
        others: int,
        pass_by: int,
    ) -> None:
        """A worker stands still while others go on, and perhaps until the tables have forgotten its tokens."""
        self.world.freeze(worker, count, inserts, choice, is_sent=is_sent, is_ticking=is_ticking)
        for number in range(others):
            self.world.process(number, 1, (), (0,), is_reversed=False, again=False)
        if self.world.standing():
            self.world.insert_others(pass_by)

    @precondition(lambda self: self.world.standing())
    @rule(choice=st.integers(0, 1))
    def wake(self, choice: int) -> None:
        self.world.wake_one(choice)

    @precondition(lambda self: any(self.world.committed))
    @rule(choice=_choices)
    def reset_offsets(self, choice: tuple[int, ...]) -> None:
        self.world.reset_offsets(choice)

    @precondition(lambda self: any(self.world.committed) and self.world.partitions < 4)
    @rule(more=st.integers(1, 2), choice=_choices)
    def grow(self, more: int, choice: tuple[int, ...]) -> None:
        self.world.grow(more, choice)

    @precondition(lambda self: any(self.world.committed))
    @rule(choice=_choices)
    def make_topic_anew(self, choice: tuple[int, ...]) -> None:
        self.world.make_topic_anew(choice)

    @invariant()
    def holds(self) -> None:
        self._watch(self.world.check)

    def teardown(self) -> None:
        try:
            if not self._is_broken:
                self._watch(self.world.drain)
        finally:
            self.world.close()
            self._logs.__exit__(None, None, None)

    def _watch(self, check: Any) -> None:
        try:
            check()
        except Violation:
            self._is_broken = True
            raise
