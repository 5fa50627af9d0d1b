"""A cancellation that nobody asked for is an error; one that was asked for is not."""

from __future__ import annotations

import asyncio

import pytest

from processors import stray
from processors.stray import StrayCancelError, stop_in_time, unless_cancelled


async def waits_for_a_cancelled_future() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    await future


async def test_a_result_comes_through() -> None:
    assert await unless_cancelled(asyncio.sleep(0, "done")) == "done"


async def test_a_future_that_is_cancelled_within_is_an_error() -> None:
    with pytest.raises(StrayCancelError):
        await unless_cancelled(waits_for_a_cancelled_future())


async def test_a_task_group_hears_of_it() -> None:
    async def both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(unless_cancelled(asyncio.sleep(3600)))
            tasks.create_task(unless_cancelled(waits_for_a_cancelled_future()))

    with pytest.raises(ExceptionGroup) as raised:
        await both()
    assert [type(error) for error in raised.value.exceptions] == [StrayCancelError]


async def test_a_task_that_is_told_to_end_ends() -> None:
    task = asyncio.create_task(unless_cancelled(asyncio.sleep(3600)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_time_limit_around_it_stays_one() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await unless_cancelled(asyncio.sleep(3600))


async def test_stopping_takes_its_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stray, "_STOP_S", 0.01)
    await stop_in_time("client", asyncio.sleep(3600))
    with pytest.raises(OSError, match="broken"):
        await stop_in_time("client", fails())


async def fails() -> None:
    raise OSError("broken")
