import asyncio

import pytest

from processors.lease import Lease, LeaseLostError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_held_while_the_process_ticks() -> None:
    clock = Clock()
    lease = Lease(10_000, clock)
    for _ in range(100):
        clock.now += 5
        lease.tick()
        lease.check()


def test_a_thread_that_looks_before_the_loop_woke_sees_the_gap() -> None:
    clock = Clock()
    lease = Lease(10_000, clock)
    clock.now += 10
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_gap_loses_it_for_good_even_after_a_new_tick() -> None:
    clock = Clock()
    lease = Lease(10_000, clock)
    clock.now += 60
    lease.tick()
    with pytest.raises(LeaseLostError):
        lease.check()


async def test_the_task_ends_with_the_error() -> None:
    clock = Clock()
    lease = Lease(10_000, clock)
    clock.now += 11
    async with asyncio.timeout(5):
        with pytest.raises(LeaseLostError):
            await lease.run()


def test_before_it_begins_no_gap_counts_and_after_it_every_one() -> None:
    clock = Clock()
    lease = Lease(10_000, clock)
    clock.now += 60
    lease.begin()
    lease.check()
    lease.tick()
    lease.check()
    clock.now += 10
    lease.tick()
    with pytest.raises(LeaseLostError):
        lease.check()
