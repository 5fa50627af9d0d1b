"""Streams end when the process is told to stop: the server waits for requests under way, and a stream would go on."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def told_to_stop(stopping: asyncio.Event) -> Iterator[None]:
    """Have the signals that stop the server set ``stopping`` too. For the main thread of a server that has installed
    its handlers; elsewhere it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    servers = {number: signal.getsignal(number) for number in _SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        server = servers[signal.Signals(number)]
        if callable(server):
            server(number, frame)

    wrapped = [number for number, server in servers.items() if callable(server)]
    for number in wrapped:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in wrapped:
            if signal.getsignal(number) is stop:
                signal.signal(number, servers[number])


async def until_stop(events: AsyncGenerator[T], stopping: asyncio.Event) -> AsyncGenerator[T]:
    """Yield what ``events`` yields, until it ends or the process is told to stop; close it then."""
    stop = asyncio.create_task(stopping.wait(), name="until-stop")
    try:
        async with aclosing(events):
            while True:
                following = asyncio.create_task(_next(events), name="next-event")
                try:
                    await asyncio.wait((following, stop), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():
                        following.cancel()
                        await asyncio.wait((following,))
                if following.cancelled():
                    return
                found = following.result()
                if not found:
                    return
                yield found[0]
    finally:
        stop.cancel()


async def _next(events: AsyncGenerator[T]) -> tuple[T] | tuple[()]:
    """Return the next of some events; nothing when there are no more."""
    try:
        return (await anext(events),)
    except StopAsyncIteration:
        return ()
