import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.store.dedupe.history import History

MIB = 1 << 20


def u64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=50), max_size=20), st.lists(st.integers(0, 2**64 - 1)))
def test_sorted_arrays_answer_as_a_set_does(blocks: list[list[int]], others: list[int]) -> None:
    history, model = History(MIB), set()
    for block in blocks:
        history.add(u64(*block))
        model.update(block)
    query = [*model, *others]
    assert history.maybe(u64(*query)).tolist() == [value in model for value in query]


def test_few_runs_are_kept_however_many_blocks_came() -> None:
    history = History(16 * MIB)
    rng = np.random.default_rng(1)
    for _ in range(2_000):
        history.add(rng.integers(0, 2**64, 100, dtype=np.uint64))
    assert history.sorted_mids == 200_000
    assert len(history._runs) < 12


def strangers(count: int) -> np.ndarray:
    return np.random.default_rng(99).integers(0, 2**64, count, dtype=np.uint64)


def filled(history: History, blocks: int, size: int, seed: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    added = [rng.integers(0, 2**64, size, dtype=np.uint64) for _ in range(blocks)]
    for block in added:
        history.add(block)
    return added


def test_beyond_their_share_of_memory_the_oldest_go_into_filters_and_none_is_forgotten() -> None:
    history = History(400_000)  # 6,250 hashes as sorted arrays
    blocks = filled(history, 20, 5_000)
    assert history.filtered_mids > 90_000
    assert history.sorted_mids + history.filtered_mids == 100_000
    assert history.held_bytes <= 400_000
    assert not history.saturated
    assert all(history.maybe(block).all() for block in blocks)
    assert history.maybe(strangers(100_000)).mean() < 0.02  # some 0.4% a filter, a few filters


def test_a_full_memory_holds_a_mid_in_some_two_bytes() -> None:
    history = History(1_000_000)
    filled(history, 43, 10_000)
    assert not history.saturated
    assert history.sorted_mids + history.filtered_mids == 430_000
    assert 700_000 < history.held_bytes <= 1_000_000
    assert len(history._filters) <= 5
    assert history.maybe(strangers(100_000)).mean() < 0.03


def test_as_many_as_were_expected_and_a_few_more_go_into_one_filter() -> None:
    history = History(4_000_000, expected=1_000_000)
    filled(history, 110, 10_000)
    assert len(history._filters) == 1
    assert history.maybe(strangers(100_000)).mean() < 0.004
    filled(history, 100, 10_000, seed=3)
    assert len(history._filters) == 2
    assert history.held_bytes <= 4_000_000


def test_more_were_expected_than_memory_is_for() -> None:
    history = History(1_000_000, expected=10**9)
    blocks = filled(history, 40, 10_000)
    assert len(history._filters) == 1
    assert history.held_bytes <= 1_000_000
    assert all(history.maybe(block).all() for block in blocks)


def test_beyond_that_it_is_wrong_more_and_more_often() -> None:
    history = History(1_000_000)
    shares = []
    for seed in range(3):
        filled(history, 30, 10_000, seed)
        shares.append(history.maybe(strangers(100_000)).mean())
    assert not history.saturated
    assert history.held_bytes <= 1_000_000
    assert 0.001 < shares[0] < shares[1] < shares[2] < 0.25


def test_when_even_that_is_too_much_every_hash_is_a_maybe() -> None:
    history = History(10_000)
    blocks = filled(history, 20, 1_000)
    assert history.saturated
    assert (history.held_bytes, history.sorted_mids, history.filtered_mids) == (0, 0, 0)
    assert history.maybe(u64(1, 2, 3)).all()
    history.add(blocks[0])
    assert history.held_bytes == 0


@settings(max_examples=20)
@given(st.integers(0, 2**64 - 1))
def test_the_largest_and_smallest_hash_are_found(value: int) -> None:
    history = History(MIB)
    history.add(u64(0, 2**64 - 1, value))
    assert history.maybe(u64(0, 2**64 - 1, value)).all()


def test_an_empty_history_knows_nothing() -> None:
    assert not History(MIB).maybe(u64(1, 2)).any()
    assert History(MIB).maybe(u64()).tolist() == []
