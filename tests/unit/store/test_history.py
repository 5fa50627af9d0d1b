import numpy as np
import pytest
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


def test_beyond_its_memory_the_oldest_become_a_filter_and_none_is_forgotten() -> None:
    history = History(400_000)  # 50,000 hashes as sorted arrays
    rng = np.random.default_rng(2)
    blocks = [rng.integers(0, 2**64, 5_000, dtype=np.uint64) for _ in range(20)]
    for block in blocks:
        history.add(block)
    assert history.filtered_mids > 0
    assert history.sorted_mids + history.filtered_mids == 100_000
    assert history.held_bytes <= 400_000
    assert not history.saturated
    assert all(history.maybe(block).all() for block in blocks)
    strangers = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    assert history.maybe(strangers).sum() <= 30  # 1e-5 a filter, a few filters


def test_a_filter_costs_about_three_bytes_a_mid() -> None:
    history = History(1_000_000)
    rng = np.random.default_rng(3)
    for _ in range(20):
        history.add(rng.integers(0, 2**64, 10_000, dtype=np.uint64))
    filters = sum(f.size_in_bits // 8 for f in history._filters)
    assert filters / history.filtered_mids == pytest.approx(3, abs=0.5)


def test_when_even_the_filters_do_not_fit_every_hash_is_a_maybe() -> None:
    history = History(10_000)
    rng = np.random.default_rng(4)
    for _ in range(20):
        history.add(rng.integers(0, 2**64, 1_000, dtype=np.uint64))
    assert history.saturated
    assert history.held_bytes == 0
    assert history.maybe(u64(1, 2, 3)).all()


@settings(max_examples=20)
@given(st.integers(0, 2**64 - 1))
def test_the_largest_and_smallest_hash_are_found(value: int) -> None:
    history = History(MIB)
    history.add(u64(0, 2**64 - 1, value))
    assert history.maybe(u64(0, 2**64 - 1, value)).all()


def test_an_empty_history_knows_nothing() -> None:
    assert not History(MIB).maybe(u64(1, 2)).any()
    assert History(MIB).maybe(u64()).tolist() == []
