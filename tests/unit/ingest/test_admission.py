import asyncio
import itertools

import pytest

from ingest.admission import Admission

ALWAYS = 200


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def turn() -> None:
    """Let the event loop come round."""
    await asyncio.sleep(0)


def fill(admission: Admission, count: int) -> None:
    for _ in range(count):
        assert admission.enter()


@pytest.mark.parametrize("most", [1, 10, 300])
async def test_requests_are_bounded_in_number(most: int) -> None:
    admission = Admission(most, Clock())
    fill(admission, most)
    assert not admission.enter()
    assert admission.under_way == most
    admission.leave()
    assert admission.enter()
    assert not admission.enter()


async def test_few_at_once_are_never_too_many_however_slow() -> None:
    clock = Clock()
    admission = Admission(1_000, clock)
    for _ in range(ALWAYS):
        assert admission.enter()
        clock.now += 1
    assert not admission.enter()
    admission.leave()
    assert admission.enter()


async def test_a_burst_is_taken_up_for_a_quarter_of_a_second_a_turn() -> None:
    clock = Clock()
    admission = Admission(1_000, clock)
    fill(admission, ALWAYS)
    clock.now += 0.25
    fill(admission, 100)
    clock.now += 0.001
    assert not admission.enter()
    await turn()
    fill(admission, 100)


async def test_when_all_turns_are_long_little_is_taken_up_in_each() -> None:
    clock = Clock()
    admission = Admission(1_000, clock)
    fill(admission, ALWAYS)
    for _ in range(10):
        assert admission.enter()
        clock.now += 0.03
        await turn()
    assert admission.enter()  # a turn begins
    clock.now += 0.02
    assert admission.enter()
    clock.now += 0.001
    assert not admission.enter()
    await turn()
    assert admission.enter()  # the last one was long too


async def test_one_short_turn_and_a_burst_may_come_again() -> None:
    clock = Clock()
    admission = Admission(1_000, clock)
    fill(admission, ALWAYS)
    for length_s in itertools.chain([0.03] * 10, [0.01]):
        assert admission.enter()
        clock.now += length_s
        await turn()
    assert admission.enter()
    clock.now += 0.24
    assert admission.enter()


async def test_an_overload_of_long_ago_is_forgotten() -> None:
    clock = Clock()
    admission = Admission(1_000, clock)
    fill(admission, ALWAYS)
    for _ in range(10):
        assert admission.enter()
        clock.now += 0.03
        await turn()
    clock.now += 1
    assert admission.enter()
    clock.now += 0.24
    assert admission.enter()
