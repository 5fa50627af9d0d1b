import asyncio
from collections import deque

import pytest

from ingest.backlog import Backlog, Refusals


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fill(backlog: Backlog) -> int:
    count = 0
    while not backlog.full:
        backlog.enter()
        count += 1
    return count


def test_no_more_wait_than_are_allowed_at_all() -> None:
    backlog = Backlog(3, Clock())
    assert fill(backlog) == 3
    assert backlog.waiting == 3
    backlog.leave(100.0)
    assert not backlog.full


def test_a_standing_queue_is_bounded_to_what_passes_in_75_ms() -> None:
    clock = Clock()
    backlog = Backlog(4_096, clock)
    waiting = deque(backlog.enter() for _ in range(250))
    for _ in range(2_000):
        clock.now += 0.0005  # 2,000 a second
        backlog.leave(waiting.popleft())
        while not backlog.full:
            waiting.append(backlog.enter())
    assert backlog.limit == backlog.waiting == pytest.approx(150, rel=0.15)


def test_some_may_always_wait_however_slow_all_is() -> None:
    clock = Clock()
    backlog = Backlog(4_096, clock)
    waiting = deque(backlog.enter() for _ in range(100))
    for _ in range(80):
        clock.now += 5
        backlog.leave(waiting.popleft())
        if not backlog.full:
            waiting.append(backlog.enter())
    assert backlog.limit == backlog.waiting == 64


def test_short_waits_raise_the_bound_where_it_is_in_the_way_and_nowhere_else() -> None:
    clock = Clock()
    backlog = Backlog(4_096, clock)
    began = backlog.limit
    for each in (began // 2, 4_096):
        waiting: deque[float] = deque()
        for _ in range(100):
            while len(waiting) < each and not backlog.full:
                waiting.append(backlog.enter())
            clock.now += 0.05
            while waiting:  # acknowledged all at once
                backlog.leave(waiting.popleft())
        assert backlog.limit == (began if each < began else 4_096)


def test_after_a_pause_what_was_before_says_nothing() -> None:
    clock = Clock()
    backlog = Backlog(4_096, clock)
    for _ in range(20):
        entered = backlog.enter()
        clock.now += 0.09
        backlog.leave(entered)
        clock.now += 0.2
    assert backlog.limit == 256


def test_a_burst_is_let_in_and_the_bound_stays() -> None:
    clock = Clock()
    backlog = Backlog(4_096, clock)
    waiting = deque(backlog.enter() for _ in range(200))
    while waiting:
        clock.now += 0.0006
        backlog.leave(waiting.popleft())
    backlog.enter()
    assert backlog.limit >= 256


def test_few_refusals_are_answered_at_once_and_many_in_turn() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    assert refusals.pause_s() == 0
    assert refusals.pause_s() == pytest.approx(0.002)
    assert [refusals.pause_s() for _ in range(500)][-1] == pytest.approx(1.002)
    clock.now += 1
    assert refusals.pause_s() == pytest.approx(0.004)
    clock.now += 10
    assert refusals.pause_s() == 0


def test_no_refusal_is_held_back_for_longer_than_two_seconds() -> None:
    refusals = Refusals(Clock())
    pauses = [refusals.pause_s() for _ in range(5_000)]
    assert max(pauses) <= 2.0
    assert pauses == sorted(pauses)


async def test_answers_that_wait_are_counted() -> None:
    refusals = Refusals()
    waiting = [asyncio.create_task(refusals.wait()) for _ in range(20)]
    await asyncio.sleep(0)
    assert refusals.waiting == 20
    waiting[-1].cancel()
    await asyncio.wait(waiting)
    assert refusals.waiting == 0
