"""Watches the whole fleet, once for all who follow it in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial

from midstream.metrics import FLEET_EVENTS_WAITING
from serve.errors import ApiError
from serve.fleet.shown import shown_entry
from serve.fleet.store import DeviceStore, Entry, StoreCalls
from serve.sse import STILL_HERE, event_of

_POLL_S = 1.0
_LATE_MS = 10_000
"""How long an insert may take to become visible after it was given its time, and how far clocks may be apart."""
_MAX_WAITING = 20_000
"""Events that wait for one reader; one who is slower loses the stream."""
_SIGN_OF_LIFE_S = 15.0


class _Reader:
    def __init__(self) -> None:
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_WAITING + 1)

    def put(self, event: bytes) -> bool:
        """Tell whether there was room; if not, the stream ends with what waits already."""
        if self.events.qsize() >= _MAX_WAITING:
            self.events.put_nowait(None)
            return False
        self.events.put_nowait(event)
        FLEET_EVENTS_WAITING.inc()
        return True

    def drop(self) -> None:
        """Forget what waits."""
        while not self.events.empty():
            if self.events.get_nowait() is not None:
                FLEET_EVENTS_WAITING.dec()


class FleetWatch:
    """Asks the store once a second of which devices something was stored, while somebody follows. One event loop."""

    def __init__(self, store: StoreCalls) -> None:
        self._store = store
        self._readers: set[_Reader] = set()
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """End all streams."""
        for reader in self._readers:
            reader.drop()
            reader.events.put_nowait(None)
        self._readers = set()
        await self._end()

    async def follow(self, longest_s: float) -> AsyncGenerator[bytes]:
        """Yield the state of each device that has reported, each time, until ``longest_s`` are over.

        Raises:
            ApiError: 503, the store does not answer.
        """
        began = time.monotonic()
        if self._task is None or self._task.done():
            since_ms = time.time_ns() // 1_000_000 - _LATE_MS
            told = await self._store.run(partial(_stored_since, since_ms))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._watch(since_ms, dict(told)), name="fleet-watch")
        reader = _Reader()
        self._readers.add(reader)
        try:
            yield STILL_HERE  # the stream has begun
            while (left_s := longest_s - (time.monotonic() - began)) > 0:
                try:
                    async with asyncio.timeout(min(_SIGN_OF_LIFE_S, left_s)):
                        event = await reader.events.get()
                except TimeoutError:
                    yield STILL_HERE
                    continue
                if event is None:
                    return
                FLEET_EVENTS_WAITING.dec()
                yield event
        finally:
            self._readers.discard(reader)
            reader.drop()
            if not self._readers:
                await self._end()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self, since_ms: int, told: dict[str, int]) -> None:
        """Tell of what is stored; of what is in ``told`` already, if it is stored again."""
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                stored = await self._store.run(partial(_stored_since, since_ms))
                fresh = [id_ for id_, stored_ms in stored.items() if told.get(id_, 0) < stored_ms]
                states = await self._store.run(partial(_states, fresh)) if fresh else {}
            except ApiError:
                continue  # asked for again; said in the log where it failed
            for device_id, state in states.items():
                self._tell(device_id, state)
            since_ms = max(since_ms, max(stored.values(), default=0) - _LATE_MS)
            told = {id_: stored_ms for id_, stored_ms in stored.items() if stored_ms > since_ms}

    def _tell(self, device_id: str, state: Mapping[str, Entry]) -> None:
        event = state_event(device_id, state)
        self._readers -= {reader for reader in self._readers if not reader.put(event)}


def _stored_since(since_ms: int, store: DeviceStore) -> Mapping[str, int]:
    return store.stored_since(since_ms)


def _states(device_ids: list[str], store: DeviceStore) -> Mapping[str, Mapping[str, Entry]]:
    return store.states(device_ids)


def state_event(device_id: str, state: Mapping[str, Entry]) -> bytes:
    """Return the event that says a device's whole state."""
    now_us = time.time_ns() // 1_000
    return event_of("state", {"device": device_id, "state": {key: shown_entry(state[key], now_us) for key in state}})
