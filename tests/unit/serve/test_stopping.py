"""Streams end when the process is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator

import pytest

from serve.stopping import told_to_stop, until_stop


async def numbers(closed: asyncio.Event, *, failing: bool = False) -> AsyncGenerator[int]:
    """Yield 1, 2, 3 at once, and then nothing for long."""
    try:
        for number in (1, 2, 3):
            yield number
        if failing:
            raise ValueError("broken")
        await asyncio.sleep(60)
    finally:
        closed.set()


async def test_what_comes_before_the_stop_comes_and_then_it_ends() -> None:
    stopping, closed = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    async with asyncio.timeout(5):
        assert [number async for number in until_stop(numbers(closed), stopping)] == [1, 2, 3]
    assert closed.is_set()


async def test_what_ends_by_itself_ends() -> None:
    async def few() -> AsyncGenerator[int]:
        yield 1

    assert [number async for number in until_stop(few(), asyncio.Event())] == [1]


async def test_what_fails_fails() -> None:
    closed = asyncio.Event()
    events = until_stop(numbers(closed, failing=True), asyncio.Event())
    assert [await anext(events) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="broken"):
        await anext(events)
    assert closed.is_set()


async def test_a_reader_who_goes_away_closes_it() -> None:
    closed = asyncio.Event()
    events = until_stop(numbers(closed), asyncio.Event())
    assert await anext(events) == 1
    waiting = asyncio.create_task(_last(events))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    await events.aclose()
    assert closed.is_set()
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("until-stop", "next-event")]


async def _last(events: AsyncGenerator[int]) -> None:
    async for _ in events:
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_reaches_the_streams_and_the_server(number: signal.Signals) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda one, _: heard.append(one))
    server = signal.getsignal(number)
    try:
        stopping = asyncio.Event()
        with told_to_stop(stopping):
            assert not stopping.is_set()
            os.kill(os.getpid(), number)
            async with asyncio.timeout(5):
                await stopping.wait()
        assert heard == [number]
        assert signal.getsignal(number) is server
    finally:
        signal.signal(number, before)
