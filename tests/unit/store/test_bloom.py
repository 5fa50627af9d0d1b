"""The filter of hashes: it knows all of its own, and takes as few strangers for them as it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.store.dedupe.bloom import BlockedBloom

MANY = 100_000


def hashes(count: int, seed: int, modulo: int = 1) -> np.ndarray:
    """Return hashes in order; all with the same remainder, as those of one partition are."""
    found = np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)
    return np.sort(found // np.uint64(modulo) * np.uint64(modulo) + np.uint64(modulo - 1))


@given(st.sets(st.integers(0, 2**64 - 1)), st.sets(st.integers(0, 2**64 - 1)), st.integers(0, 2_000))
def test_it_knows_each_of_its_own(first: set[int], second: set[int], size_bytes: int) -> None:
    bloom = BlockedBloom(size_bytes)
    for some in (first, second):
        bloom.add(np.array(sorted(some), dtype=np.uint64))
    assert bloom.held == len(first) + len(second)
    assert bloom.maybe(np.array([*second, *first], dtype=np.uint64)).all()
    assert bloom.size_bytes <= max(size_bytes, 8)


@pytest.mark.parametrize("modulo", [2, 64, 1_000])
@pytest.mark.parametrize(("bits", "least", "most"), [(16, 190, 290), (8, 25, 34), (4, 4, 6)])
def test_it_takes_so_few_strangers_for_its_own(bits: int, least: int, most: int, modulo: int) -> None:
    bloom = BlockedBloom(MANY * bits // 8)
    bloom.add(hashes(MANY, 1, modulo))
    wrong = bloom.maybe(hashes(MANY, 2, modulo)).sum()
    assert least < MANY / wrong < most


def test_it_is_no_worse_among_the_hashes_that_it_was_given_a_range_of() -> None:
    """ClickHouse sends them in ascending order: what fits into one filter may be the lower half of a part."""
    bloom = BlockedBloom(MANY * 16 // 8)
    own = hashes(2 * MANY, 1, modulo=64)[:MANY]
    bloom.add(own)
    near = hashes(2 * MANY, 2, modulo=64)[:MANY]
    assert MANY / bloom.maybe(near).sum() > 190


def test_it_takes_many_in_portions() -> None:
    bloom = BlockedBloom(1 << 20)
    own = hashes(700_000, 3)
    bloom.add(own)
    assert bloom.held == 700_000
    assert bloom.maybe(own).all()


def test_an_empty_one_knows_nothing() -> None:
    bloom = BlockedBloom(1_000)
    bloom.add(hashes(0, 1))
    assert bloom.held == 0
    assert not bloom.maybe(hashes(MANY, 1)).any()
    assert bloom.maybe(hashes(0, 1)).tolist() == []
