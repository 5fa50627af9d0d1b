"""How a worker takes a stream's records: bounded by number, bytes and time; none lost, none while others are worked
on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from midstream.metrics import TAKEN_BYTES
from processors.stray import StrayCancelError
from processors.take import for_each, take

LONG_S = 30.0
SHORT_S = 0.02


class Stream:
    """Faust's, as far as it is asked: yields one event for each value put into it, and raises what is put there."""

    def __init__(self, *sizes: int) -> None:
        self.enable_acks = True
        self.waiting: asyncio.Queue[int | BaseException | None] = asyncio.Queue()
        self.read = 0
        self.ended = False
        for size in sizes:
            self.waiting.put_nowait(size)

    async def events(self) -> AsyncIterator[Any]:
        try:
            while (one := await self.waiting.get()) is not None:
                if isinstance(one, BaseException):
                    raise one
                self.read += 1
                yield SimpleNamespace(number=self.read, message=SimpleNamespace(value=bytes(one) or None))
        finally:
            self.ended = True


def taking(stream: Stream, *, records: int = 1_000, max_bytes: int = 1_000, within_s: float = SHORT_S) -> Any:
    return take(stream, "t", records=records, max_bytes=max_bytes, within_s=within_s)


def numbers(events: list[Any]) -> list[int]:
    return [event.number for event in events]


async def test_what_has_come_is_given_in_time() -> None:
    stream = Stream(0, 0, 0)
    async with aclosing(taking(stream)) as taken:
        assert numbers(await anext(taken)) == [1, 2, 3]
        for _ in range(2):
            stream.waiting.put_nowait(0)
        assert numbers(await anext(taken)) == [4, 5]
    assert stream.enable_acks is False


async def test_so_many_records_are_given_at_once_and_no_more() -> None:
    stream = Stream(*[0] * 7)
    async with asyncio.timeout(LONG_S / 2), aclosing(taking(stream, records=3, within_s=LONG_S)) as taken:
        assert [numbers(await anext(taken)) for _ in range(2)] == [[1, 2, 3], [4, 5, 6]]
        for _ in range(2):
            stream.waiting.put_nowait(0)
        assert numbers(await anext(taken)) == [7, 8, 9]


async def test_so_many_bytes_are_given_at_once_with_the_record_that_fills_them() -> None:
    stream = Stream(40, 40, 40, 40, 500, 99, 1)
    async with asyncio.timeout(LONG_S / 2), aclosing(taking(stream, max_bytes=100, within_s=LONG_S)) as taken:
        assert [numbers(await anext(taken)) for _ in range(3)] == [[1, 2, 3], [4, 5], [6, 7]]


async def test_while_some_are_worked_on_one_more_is_read_at_the_most() -> None:
    stream = Stream(10, 10)
    async with aclosing(taking(stream)) as taken:
        await anext(taken)
        assert TAKEN_BYTES.labels("t")._value.get() == 20
        for _ in range(50):
            stream.waiting.put_nowait(1)
        await asyncio.sleep(3 * SHORT_S)
        assert stream.read <= 3
        assert numbers(await anext(taken)) == list(range(3, 53))
        assert TAKEN_BYTES.labels("t")._value.get() == 50


async def test_the_end_of_the_stream_is_the_end() -> None:
    stream = Stream(0)
    given: list[list[int]] = []

    async def work(events: list[Any]) -> None:
        given.append(numbers(events))
        stream.waiting.put_nowait(None)

    async with asyncio.timeout(LONG_S):
        await for_each(taking(stream), work)
    assert given == [[1]]


@pytest.mark.parametrize(
    ("raised", "expected"), [(OSError("gone"), OSError), (asyncio.CancelledError(), StrayCancelError)]
)
async def test_what_reading_raises_is_raised(raised: BaseException, expected: type[Exception]) -> None:
    stream = Stream()
    stream.waiting.put_nowait(raised)
    with pytest.raises(expected):
        async with asyncio.timeout(LONG_S):
            await anext(taking(stream))


async def test_nothing_reads_on_after_work_has_failed() -> None:
    stream = Stream(7)

    async def work(_: list[Any]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await for_each(taking(stream), work)
    assert stream.ended
    assert TAKEN_BYTES.labels("t")._value.get() == 0


async def test_the_error_of_the_work_is_raised_and_not_that_of_reading_meanwhile() -> None:
    stream = Stream(0)

    async def work(_: list[Any]) -> None:
        stream.waiting.put_nowait(OSError("gone"))
        await asyncio.sleep(SHORT_S)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await for_each(taking(stream), work)


async def test_whoever_is_cancelled_leaves_no_reader() -> None:
    stream = Stream(0)
    begun = asyncio.Event()

    async def work(_: list[Any]) -> None:
        begun.set()
        await asyncio.sleep(LONG_S)

    for wait_first in (True, False):
        stream.waiting.put_nowait(0)
        task = asyncio.create_task(for_each(taking(stream), work))
        if wait_first:
            await begun.wait()
        else:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "take t"]
