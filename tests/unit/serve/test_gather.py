"""Requests worked on together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
from prometheus_client import Gauge

from serve.calls import CallError
from serve.gather import Bounds, Gather

BOUNDS = Bounds(together=5, together_bytes=100, waiting=50, waiting_bytes=1_000, calls=2, apart_s=0.05, timeout_s=5.0)


class Slow:
    """Doubles numbers; each call waits until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.began: list[float] = []
        self.go = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        self.began.append(time.monotonic())
        assert self.go.wait(5)
        if 13 in numbers:
            raise ValueError("unlucky")
        return [2 * number for number in numbers]


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def waiting() -> Gauge:
    return Gauge("waiting", "Of a test.", registry=None)


@pytest.fixture
async def make(slow: Slow, waiting: Gauge) -> AsyncIterator[Callable[..., Gather[int, int]]]:
    made: list[Gather[int, int]] = []

    def gather(**changes: float) -> Gather[int, int]:
        made.append(Gather("test", slow, replace(BOUNDS, **changes), waiting))
        return made[-1]

    yield gather
    slow.go.set()
    for one in made:
        one.close()


async def begin(gather: Gather[int, int], *numbers: int, size_bytes: int = 0) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(gather.run(number, size_bytes)) for number in numbers]
    await asyncio.sleep(0.01)
    return tasks


async def test_a_lone_request_goes_at_once(make: Callable[..., Gather[int, int]], slow: Slow) -> None:
    slow.go.set()
    assert await make().run(4) == 8
    assert slow.calls == [[4]]


async def test_those_that_come_soon_after_go_together(
    make: Callable[..., Gather[int, int]], slow: Slow, waiting: Gauge
) -> None:
    gather = make(apart_s=0.1)
    slow.go.set()
    tasks = await begin(gather, 1, 2, 3)
    assert slow.calls == [[1]]
    assert waiting._value.get() == 2
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert slow.calls == [[1], [2, 3]]
    assert waiting._value.get() == 0


async def test_nobody_waits_for_a_slow_call(make: Callable[..., Gather[int, int]], slow: Slow) -> None:
    tasks = await begin(make(), 1, 2, 3)
    await asyncio.sleep(0.2)
    assert slow.calls == [[1], [2, 3]]
    assert 0.04 < slow.began[1] - slow.began[0] < 0.15
    slow.go.set()
    await asyncio.gather(*tasks)


async def test_never_more_calls_than_allowed(make: Callable[..., Gather[int, int]], slow: Slow) -> None:
    gather = make(apart_s=0.0)
    tasks = await begin(gather, 1) + await begin(gather, 2) + await begin(gather, 3, 4)
    assert slow.calls == [[1], [2]]
    slow.go.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert slow.calls[2] == [3, 4]


async def test_a_call_is_bounded_by_number_and_by_bytes(make: Callable[..., Gather[int, int]], slow: Slow) -> None:
    gather = make(calls=1)
    tasks = await begin(gather, 0, *range(1, 8))
    tasks += await begin(gather, *range(8, 11), size_bytes=60)
    tasks += await begin(gather, 11, size_bytes=500)
    slow.go.set()
    await asyncio.gather(*tasks)
    assert slow.calls == [[0], [1, 2, 3, 4, 5], [6, 7, 8], [9], [10], [11]]


async def test_what_a_call_raises_each_of_its_callers_gets(make: Callable[..., Gather[int, int]], slow: Slow) -> None:
    tasks = await begin(make(calls=1), 1, 13, 14)
    slow.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == 2
    assert [str(one) for one in results[1:]] == ["unlucky", "unlucky"]


async def test_too_many_are_refused(make: Callable[..., Gather[int, int]], slow: Slow) -> None:
    gather = make(calls=1, waiting=2)
    tasks = await begin(gather, 1) + await begin(gather, 2, 3)
    with pytest.raises(CallError, match="too many"):
        await gather.run(4)
    slow.go.set()
    await asyncio.gather(*tasks)
    gather = make(calls=1)
    slow.go.clear()
    tasks = await begin(gather, 1) + await begin(gather, 2, size_bytes=990)
    with pytest.raises(CallError, match="too many"):
        await gather.run(3, 20)
    slow.go.set()
    await asyncio.gather(*tasks)


async def test_nobody_waits_for_ever(make: Callable[..., Gather[int, int]], slow: Slow, waiting: Gauge) -> None:
    gather = make(calls=1, timeout_s=0.05)
    results = await asyncio.gather(gather.run(1), gather.run(2), return_exceptions=True)
    assert [type(one) for one in results] == [CallError, CallError]
    slow.go.set()
    await asyncio.sleep(0.1)
    assert slow.calls == [[1]], "whoever went away is not worked for"
    assert waiting._value.get() == 0
