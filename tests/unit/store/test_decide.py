from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from processors.store.block import mid_hashes
from processors.store.dedupe.decide import Decision, decide
from processors.store.dedupe.recent import Arrival
from tests.unit.store.rows import RECEIVED_AT_MS, block


class Stored:
    """ClickHouse as a dict; every hash is a maybe unless ``exact``."""

    def __init__(self, *arrivals: Arrival, exact: bool = True) -> None:
        self.by_mid = {arrival.mid: arrival for arrival in arrivals}
        self.exact = exact
        self.asked: list[str] = []

    def maybe_stored(self, hashes: np.ndarray, of: int) -> np.ndarray:
        if not self.exact:
            return np.ones(len(hashes), dtype=bool)
        from processors.validate.split import hash_mid

        return np.isin(hashes, np.array([hash_mid(mid) for mid in self.by_mid], dtype=np.uint64))

    def find(self, wanted: Iterable[tuple[int, str]]) -> dict[str, Arrival]:
        self.asked = [mid for _, mid in wanted]
        return {mid: self.by_mid[mid] for mid in self.asked if mid in self.by_mid}


def arrival(mid: str, batch_id: str, index: int) -> Arrival:
    return Arrival(mid, batch_id, index, RECEIVED_AT_MS, 7)


def decided(arrivals: list[tuple[str, str, int]], stored: Stored) -> Decision:
    rows = block(arrivals)
    return decide(rows, mid_hashes(rows), 1, stored)


def test_what_nobody_stored_is_new_and_costs_no_query() -> None:
    stored = Stored()
    decision = decided([("a", "b1", 0), ("b", "b1", 1)], stored)
    assert decision.new.tolist() == [0, 1]
    assert decision.duplicates == []
    assert decision.replays == 0
    assert stored.asked == []


def test_another_arrival_of_a_stored_mid_is_a_duplicate_that_names_the_first() -> None:
    first = arrival("a", "b0", 3)
    decision = decided([("a", "b1", 0), ("b", "b1", 1)], Stored(first))
    assert decision.new.tolist() == [1]
    assert decision.duplicates == [(0, first)]


def test_the_same_arrival_again_is_a_replay_and_counted_nowhere() -> None:
    decision = decided([("a", "b1", 0), ("b", "b1", 1)], Stored(arrival("a", "b1", 0)))
    assert decision.new.tolist() == [1]
    assert decision.duplicates == []
    assert decision.replays == 1


def test_the_same_index_of_another_batch_and_another_index_of_the_same_batch_are_duplicates() -> None:
    assert len(decided([("a", "b2", 0)], Stored(arrival("a", "b1", 0))).duplicates) == 1
    assert len(decided([("a", "b1", 1)], Stored(arrival("a", "b1", 0))).duplicates) == 1


def test_a_mid_twice_in_one_block_is_stored_once() -> None:
    decision = decided([("a", "b1", 0), ("b", "b1", 1), ("a", "b2", 0), ("a", "b1", 0)], Stored())
    assert decision.new.tolist() == [0, 1]
    ((row, first),) = decision.duplicates
    assert row == 2
    assert (first.batch_id, first.event_index) == ("b1", 0)
    assert decision.replays == 1


def test_a_hash_that_only_seems_known_drops_nothing() -> None:
    decision = decided([("a", "b1", 0), ("b", "b1", 1)], Stored(exact=False))
    assert decision.new.tolist() == [0, 1]


def test_two_mids_with_one_hash_are_two_events() -> None:
    rows = block([("a", "b1", 0), ("b", "b1", 1)])
    same = np.array([42, 42], dtype=np.uint64)
    decision = decide(rows, same, 1, Stored(arrival("a", "b0", 0), exact=False))
    assert decision.new.tolist() == [1]
    assert [row for row, _ in decision.duplicates] == [0]


mids = st.sampled_from(["a", "b", "c", "d"])
arrivals = st.tuples(mids, st.sampled_from(["b1", "b2", "b3"]), st.integers(0, 2))


@given(st.lists(st.lists(arrivals, min_size=1, max_size=8), max_size=6), st.booleans())
def test_any_sequence_of_blocks_stores_each_mid_once_and_counts_each_arrival_once(
    blocks: list[list[tuple[str, str, int]]], exact: bool
) -> None:
    stored = Stored(exact=exact)
    kept: list[tuple[str, str, int]] = []
    duplicated: set[tuple[str, str, int]] = set()
    for arrived in blocks:
        decision = decided(arrived, stored)
        assert len(decision.new) + len(decision.duplicates) + decision.replays == len(arrived)
        for row in decision.new.tolist():
            mid, batch_id, index = arrived[row]
            stored.by_mid[mid] = arrival(mid, batch_id, index)
            kept.append(arrived[row])
        duplicated |= {arrived[row] for row, _ in decision.duplicates}
    everything = {one for arrived in blocks for one in arrived}
    assert len({mid for mid, _, _ in kept}) == len(kept)
    assert {mid for mid, _, _ in kept} == {mid for mid, _, _ in everything}
    assert set(kept).isdisjoint(duplicated)
    assert set(kept) | duplicated == everything
