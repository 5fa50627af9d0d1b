import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from midstream.deadlines import Deadlines, Limit

SHORT_S = 0.05


async def test_each_ends_in_its_own_time_with_one_timer() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(SHORT_S)
    began, ended = [], []

    def note(number: int) -> Callable[[], None]:
        return lambda: ended.append((number, loop.time()))

    for number in range(5):
        began.append(loop.time())
        deadlines.add(note(number), loop)
        await asyncio.sleep(0.01)
    await asyncio.sleep(2 * SHORT_S)
    assert [number for number, _ in ended] == list(range(5))
    assert all(at - began[number] >= SHORT_S - 0.002 for number, at in ended)


async def test_what_is_discarded_is_not_called() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(SHORT_S)
    called: list[int] = []

    def first() -> None:
        called.append(1)

    def second() -> None:
        called.append(2)

    deadlines.add(first, loop)
    deadlines.add(second, loop)
    deadlines.discard(first)
    deadlines.discard(first)
    await asyncio.sleep(3 * SHORT_S)
    assert called == [2]
    deadlines.add(first, loop)  # it begins again after it had nothing to do
    await asyncio.sleep(3 * SHORT_S)
    assert called == [2, 1]


async def test_a_fault_of_one_keeps_no_other_waiting() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(SHORT_S)
    called: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    deadlines.add(fail, loop)
    deadlines.add(lambda: called.append(1), loop)
    await asyncio.sleep(3 * SHORT_S)
    assert called == [1]
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


async def test_what_takes_too_long_is_cancelled() -> None:
    deadlines = Deadlines(SHORT_S)
    with pytest.raises(TimeoutError), Limit(deadlines):
        await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # and nothing after it


async def test_what_is_in_time_is_left_alone() -> None:
    deadlines = Deadlines(SHORT_S)
    with Limit(deadlines):
        await asyncio.sleep(0)
    with pytest.raises(KeyError), Limit(deadlines):
        raise KeyError
    await asyncio.sleep(2 * SHORT_S)


async def test_a_cancellation_from_elsewhere_goes_on() -> None:
    deadlines = Deadlines(60)

    async def wait() -> None:
        with Limit(deadlines):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("ended_first", [True, False])
async def test_both_at_once_is_a_cancellation(ended_first: bool) -> None:
    limit = Limit(Deadlines(60))

    async def wait() -> None:
        with limit:
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    if ended_first:
        limit._expire()
    task.cancel()
    if not ended_first:
        limit._expire()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_can_be_ended_before_its_time() -> None:
    limit = Limit(Deadlines(60))
    asyncio.get_running_loop().call_later(0.01, limit.end)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(60)


async def test_ended_from_inside_it_cancels_nothing_outside() -> None:
    limit = Limit(Deadlines(60))
    with limit:
        limit.end()
    await asyncio.sleep(0.01)
    with suppress(KeyError), limit:
        limit.end()
        raise KeyError
    await asyncio.sleep(0.01)


async def test_one_ends_within_another() -> None:
    outer, inner = Limit(Deadlines(60)), Limit(Deadlines(SHORT_S))
    with outer:
        with pytest.raises(TimeoutError), inner:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
