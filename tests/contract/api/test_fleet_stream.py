"""Following a device, and the whole fleet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from midstream.metrics import FLEET_EVENTS_WAITING
from serve.errors import ApiError
from serve.fleet.stream import State, follow
from serve.services import Services
from serve.sse import STILL_HERE

from .device_store import MemoryEntry, MemoryStore
from .fleet import Caller, Device, is_refused


def parse(event: bytes) -> tuple[str, dict[str, Any]]:
    name, data, *rest = event.decode().split("\n")
    assert rest == ["", ""]
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


class TestStream:
    async def test_what_changes_is_told(self) -> None:
        states: list[State | Exception] = [
            {"a": MemoryEntry(1, 10, 10), "b": MemoryEntry("x", 10, 10)},
            {"a": MemoryEntry(1, 10, 10), "b": MemoryEntry("x", 10, 10)},
            {"a": MemoryEntry(2, 20, 20), "b": MemoryEntry("x", 10, 10)},
            ApiError(503, "AWAY", "away"),
            {"a": MemoryEntry(2, 30, 30)},
        ]

        async def ask() -> State:
            state = states.pop(0) if len(states) > 1 else states[0]
            if isinstance(state, Exception):
                raise state
            return state

        events = [parse(one) async for one in follow("d", await ask(), ask, poll_s=0.01, longest_s=0.3)]
        assert events[0][0] == "state"
        assert {key: one["value"] for key, one in events[0][1]["state"].items()} == {"a": 1, "b": "x"}
        assert events[1:] == [
            ("change", {"device": "d", "key": "a", "value": 2, "at": "1970-01-01T00:00:00.000020Z"}),
            ("change", {"device": "d", "key": "a", "value": 2, "at": "1970-01-01T00:00:00.000030Z"}),
            ("change", {"device": "d", "key": "b", "value": None}),
        ]

    async def test_over_http(
        self,
        services: Services,
        fleet: Caller,
        device: Device,
        say: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("serve.fleet.stream._POLL_S", 0.02)
        monkeypatch.setattr("serve.fleet.stream._LONGEST_S", 1.0)
        asked = 0
        ask_store = services.device_store.run

        async def run(ask: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 3:  # the stream has begun
                say(device, "error", telemetries={"temp": 5})
            return await ask_store(ask)

        monkeypatch.setattr(services.device_store, "run", run)
        reply = await fleet("GET", f"/stream?device={device.id}")
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [parse(one.encode() + b"\n\n") for one in reply.text.split("\n\n") if one]
        assert [(name, data.get("key"), data.get("value")) for name, data in events] == [
            ("state", None, None),
            ("change", "status", "error"),
            ("change", "temp", 5),
        ]

    async def test_so_many_at_once(self, services: Services, fleet: Caller, device: Device) -> None:
        for _ in range(services.stream_slots._value):
            await services.stream_slots.acquire()
        is_refused(await fleet("GET", f"/stream?device={device.id}"), 503)

    async def test_of_the_whole_fleet(
        self,
        services: Services,
        fleet: Caller,
        device: Device,
        register: Callable[..., Awaitable[Device]],
        say: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        device_store: MemoryStore,
    ) -> None:
        """Each state once each time that its device reports, whatever else the store says; a store that is away for a
        while holds it up only."""
        monkeypatch.setattr("serve.fleet.watch._POLL_S", 0.1)
        monkeypatch.setattr("serve.fleet.stream._LONGEST_S", 2.0)
        other = await register("SN-2")
        say(device, telemetries={"temp": 1})  # before anybody follows

        async def happen() -> None:
            await asyncio.sleep(0.3)
            say(device, telemetries={"temp": 2})
            await asyncio.sleep(0.4)
            say(other, "error")
            device_store.away = True
            await asyncio.sleep(0.4)
            device_store.away = False

        happens = asyncio.create_task(happen())
        both = await asyncio.gather(fleet("GET", "/stream"), fleet("GET", "/stream"))
        await happens
        for reply in both:
            assert reply.headers["content-type"].startswith("text/event-stream")
            events = [parse(one.encode() + b"\n\n") for one in reply.text.split("\n\n") if one and one[0] != ":"]
            said = [
                (name, data["device"], {key: entry["value"] for key, entry in data["state"].items()})
                for name, data in events
            ]
            assert said == [
                ("state", device.id, {"status": "online", "temp": 2}),
                ("state", other.id, {"status": "error"}),
            ]
        assert services.fleet_watch._task is None
        assert FLEET_EVENTS_WAITING._value.get() == 0

    async def test_who_reads_too_slowly_loses_the_stream(
        self, services: Services, device: Device, say: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serve.fleet.watch._POLL_S", 0.02)
        monkeypatch.setattr("serve.fleet.watch._MAX_WAITING", 3)
        slow = services.fleet_watch.follow(60)
        assert await anext(slow) == STILL_HERE
        for temp in range(5):
            say(device, telemetries={"temp": temp})
            await asyncio.sleep(0.1)
        rest = [parse(event)[1]["state"]["temp"]["value"] async for event in slow]
        assert rest == [0, 1, 2]
        assert services.fleet_watch._task is None
        assert FLEET_EVENTS_WAITING._value.get() == 0

    async def test_a_store_that_is_away_is_a_status(self, fleet: Caller, device_store: MemoryStore) -> None:
        device_store.away = True
        is_refused(await fleet("GET", "/stream"), 503)
