"""Something that is done again and again."""

import asyncio

from serve.repeating import Repeating


async def test_it_is_done_until_it_is_closed() -> None:
    times = 0
    thrice = asyncio.Event()

    async def do() -> None:
        nonlocal times
        times += 1
        if times == 3:
            thrice.set()

    repeating = Repeating("test", do, 0.01)
    repeating.start()
    async with asyncio.timeout(5):
        await thrice.wait()
    await repeating.close()
    before = times
    await asyncio.sleep(0.05)
    assert times == before


async def test_a_rest_may_come_first() -> None:
    done = asyncio.Event()

    async def do() -> None:
        done.set()

    repeating = Repeating("test", do, 0.05, at_once=False)
    repeating.start()
    await asyncio.sleep(0.01)
    assert not done.is_set()
    async with asyncio.timeout(5):
        await done.wait()
    await repeating.close()


async def test_what_is_being_done_is_cancelled() -> None:
    begun = asyncio.Event()

    async def do() -> None:
        begun.set()
        await asyncio.sleep(60)

    repeating = Repeating("test", do, 0.01)
    repeating.start()
    await begun.wait()
    async with asyncio.timeout(5):
        await repeating.close()
    await Repeating("never begun", do, 1).close()
