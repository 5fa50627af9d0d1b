"""The first step of a coroutine is made at once; what is left goes on as if it had been a task from the start."""

from __future__ import annotations

import asyncio

import pytest

from processors.stepped import after_first_step


async def test_what_waits_for_nothing_is_done_at_once() -> None:
    done = []

    async def work() -> None:
        async with asyncio.Lock():
            done.append(1)

    assert after_first_step(work()) is None
    assert done == [1]


async def test_what_it_raises_at_once_is_raised() -> None:
    async def work() -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        after_first_step(work())


async def test_what_is_left_goes_on_with_what_it_waited_for() -> None:
    first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def work() -> int:
        got = await first
        await queue.put(got)
        await asyncio.sleep(0)
        await queue.put(got + 1)  # waits: it is full
        return got + 2

    rest = after_first_step(work())
    assert rest is not None
    task = asyncio.create_task(rest)
    await asyncio.sleep(0)
    first.set_result(5)
    assert [await queue.get(), await queue.get()] == [5, 6]
    assert await task == 7


async def test_a_cancellation_and_an_error_reach_it_where_it_waits() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cancelled")
            raise

    rest = after_first_step(work())
    assert rest is not None
    task = asyncio.create_task(rest)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]

    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        try:
            await failing
        except ValueError as error:
            return str(error)
        return "nothing came"

    rest = after_first_step(wait())
    assert rest is not None
    task = asyncio.create_task(rest)
    failing.set_exception(ValueError("while it waited"))
    assert await task == "while it waited"
