"""Takes a stream's records some at a time, as Faust's ``noack_take`` does, and bounds their bytes too: a thousand small
batches are little, and a thousand of the largest more than a machine has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

from midstream.metrics import TAKEN_BYTES
from processors.stray import unless_cancelled


class _Taken:
    """What has been read of a stream and not been given out."""

    def __init__(self, records: int, max_bytes: int) -> None:
        self._records = records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._events: list[Any] = []
        self._is_open = asyncio.Event()
        self._is_open.set()
        self.full = asyncio.Event()

    async def read(self, stream: Any) -> None:
        """Read for ever; while it is full or what it held is under work, nothing is read."""
        async for event in stream.events():
            while not self._is_open.is_set():
                await self._is_open.wait()
            self._events.append(event)
            self._bytes += len(event.message.value or b"")
            if len(self._events) >= self._records or self._bytes >= self._max_bytes:
                self._is_open.clear()
                self.full.set()

    def give(self) -> tuple[list[Any], int]:
        """Return what there is and its bytes; no more is read until :meth:`open`."""
        self._is_open.clear()
        self.full.clear()
        given, self._events = (self._events, self._bytes), []
        self._bytes = 0
        return given

    def open(self) -> None:
        """Read on."""
        self._is_open.set()


async def take(
    stream: Any, topic: str, *, records: int, max_bytes: int, within_s: float
) -> AsyncGenerator[list[Any], None]:
    """Yield a stream's events, none acknowledged: every ``within_s`` what has come, and at once what is full.

    Args:
        stream: of a Faust agent.
        topic: its topic, for the metric.
        records: how many come at once at the most.
        max_bytes: how many bytes of values do, but for one record at least; it ends with the record that fills it.
        within_s: how long a record waits for others at the most.

    Raises:
        Exception: whatever reading the stream raises.
    """
    stream.enable_acks = False
    taken = _Taken(records, max_bytes)
    gauge = TAKEN_BYTES.labels(topic)
    reader = asyncio.create_task(unless_cancelled(taken.read(stream)), name=f"take {topic}")
    try:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(taken.full.wait(), within_s)
            if reader.done():
                reader.result()
                return
            events, size = taken.give()
            if events:
                gauge.set(size)
                yield events
                gauge.set(0)
            taken.open()
    finally:
        gauge.set(0)
        reader.cancel()
        await asyncio.wait([reader])
        if not reader.cancelled():
            reader.exception()  # looked at, but not raised over the error of whoever worked on what was given


async def for_each(taken: AsyncGenerator[list[Any], None], work: Callable[[list[Any]], Awaitable[None]]) -> None:
    """Await ``work`` for what is taken, in turn; when that ends, for whatever reason, nothing reads on."""
    async with aclosing(taken):
        async for events in taken:
            await work(events)
