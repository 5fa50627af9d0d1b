"""The operator's side of the fleet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from midstream.devices.report import read_report
from midstream.registry.fleet.devices import Registration
from midstream.settings import Settings
from serve.fleet import devices as devices_module
from serve.services import Services

from .device_store import MemoryStore
from .fleet import Caller, Device, is_good, is_refused

Register = Callable[..., Awaitable[Device]]

MINUTE_US = 60 * 1_000_000

GUARDED = [
    ("GET", "/devices", None),
    ("GET", "/devices/x", None),
    ("GET", "/devices/x/state", None),
    ("GET", "/devices/x/history?key=a", None),
    ("PUT", "/devices/x/config", {"name": "n", "config": {}}),
    ("POST", "/devices/x/commands", {"name": "n"}),
    ("GET", "/devices/x/commands", None),
    ("POST", "/devices/x/licenses", {"data": "", "signature": "", "action": "add"}),
    ("GET", "/devices/x/licenses", None),
    ("GET", "/devices/x/licenses/y/history", None),
    ("POST", "/devices/x/claim", {"space": {}}),
    ("POST", "/devices/x/revoke", None),
    ("GET", "/devices/x/events", None),
    ("GET", "/devices/x/dumps", None),
    ("GET", "/devices/x/dumps/y", None),
    ("GET", "/models", None),
    ("POST", "/models/x/files?version=1.0.0&name=n", b"file"),
    ("GET", "/models/x/files", None),
    ("PATCH", "/models/x/files/y", {"rollout_percent": 5}),
    ("GET", "/stream?device=x", None),
]
OF_NOTHING = [one for one in GUARDED if "/x" in one[1] or "=x" in one[1]]


def now_us() -> int:
    return time.time_ns() // 1_000


def silence(services: Services, device: Device, seconds: int) -> None:
    """Let a device have been seen last so long ago."""
    seen = datetime.now(UTC) - timedelta(seconds=seconds)
    with services.control._engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE devices SET last_seen_at = ? WHERE id = ?", (seen.replace(tzinfo=None).isoformat(" "), device.id)
        )


class TestWhoCalls:
    @pytest.mark.parametrize(("method", "path", "sent"), GUARDED)
    async def test_an_operators_token_alone(
        self, client: httpx.AsyncClient, app_token: dict[str, str], device: Device, method: str, path: str, sent: Any
    ) -> None:
        for key in (None, "Bearer nonsense", device.key, app_token["authorization"]):
            is_refused(await Caller(client, key, "/v1/fleet")(method, path, sent), 401)

    @pytest.mark.parametrize(("method", "path", "sent"), OF_NOTHING)
    async def test_what_is_not_there(self, fleet: Caller, method: str, path: str, sent: Any) -> None:
        for nothing in ("x", "%00", "%F0%9F%98%80"):
            is_refused(await fleet(method, path.replace("x", nothing, 1), sent), 404)


class TestList:
    async def test_a_device_as_it_stands_there(self, fleet: Caller, device: Device, say: Callable[..., None]) -> None:
        say(device, "error")
        answer = is_good(await fleet("GET", "/devices?q=&status=&model=&stale=&page="))
        [shown] = answer["devices"]
        assert answer["next"] is None
        assert datetime.fromisoformat(shown.pop("last_seen")) <= datetime.now(UTC)
        assert shown == {
            "id": device.id,
            "sn": "SN-1",
            "name": "Hall",
            "model": "hub-100",
            "status": "error",
            "firmware_version": "1.0.0",
            "stale": False,
        }

    async def test_a_silent_device_is_stale_then_offline(
        self, services: Services, fleet: Caller, device: Device, say: Callable[..., None]
    ) -> None:
        say(device, "online")
        for seconds, stale, status in (
            (5, False, "online"),
            (15, True, "online"),
            (25, True, "offline"),
            (500_000, True, "offline"),
        ):
            silence(services, device, seconds)
            for path in ("/devices", f"/devices/{device.id}", f"/devices/{device.id}/state"):
                answer = is_good(await fleet("GET", path))
                [shown] = answer.get("devices", [answer])
                assert (shown["stale"], shown["status"]) == (stale, status), (seconds, path)

    async def test_what_is_sought(
        self, services: Services, fleet: Caller, register: Register, say: Callable[..., None]
    ) -> None:
        hall, stage, roof = await register("A-1", name="Hall"), await register("A-2"), await register("B-1", name="R%")
        say(hall, "online")
        say(stage, "error")
        say(roof, "online")
        silence(services, roof, 100)

        async def found(query: str) -> set[str]:
            return {one["sn"] for one in is_good(await fleet("GET", f"/devices?{query}"))["devices"]}

        assert await found("q=A-") == {"A-1", "A-2"}
        assert await found("q=al") == {"A-1"}
        assert await found("q=%25") == {"B-1"}
        assert await found("q=%00") == set()
        assert await found("status=online") == {"A-1"}
        assert await found("status=error") == {"A-2"}
        assert await found("status=offline") == {"B-1"}
        assert await found("stale=true") == {"B-1"}
        assert await found("stale=false") == {"A-1", "A-2"}
        assert await found("stale=false&status=online&model=hub-100") == {"A-1"}
        assert await found("model=hub-200") == set()

    @pytest.mark.parametrize("query", ["", "status=online", "stale=false"])
    async def test_pages_hold_each_device_once(
        self,
        services: Services,
        fleet: Caller,
        hardware_key: str,
        device_store: MemoryStore,
        monkeypatch: pytest.MonkeyPatch,
        query: str,
    ) -> None:
        monkeypatch.setattr(devices_module, "PAGE_DEVICES", 3)
        monkeypatch.setattr(devices_module, "_SCAN_DEVICES", 2)
        ids = []
        for n in range(9):
            made = services.control.devices.register(Registration(f"P{n}", "1", hardware_key, mac="m"))
            device_store.reports.append(read_report(made.id, {"status": "online"}, now_us(), "r"))
            ids.append(made.id)
        found: list[str] = []
        page: str | None = ""
        pages = 0
        while page is not None:
            answer = is_good(await fleet("GET", f"/devices?{query}&page={page}"))
            found += [one["id"] for one in answer["devices"]]
            page, pages = answer["next"], pages + 1
        assert found == sorted(ids)
        assert 3 <= pages <= 4

    async def test_of_many_that_do_not_match_a_page_looks_at_so_many(
        self, services: Services, fleet: Caller, hardware_key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(devices_module, "_SCAN_DEVICES", 1)
        monkeypatch.setattr(devices_module, "_MAX_SCANS", 3)
        for n in range(5):
            services.control.devices.register(Registration(f"P{n}", "1", hardware_key, mac="m"))
        first = is_good(await fleet("GET", "/devices?status=error"))
        assert first["devices"] == []
        second = is_good(await fleet("GET", f"/devices?status=error&page={first['next']}"))
        assert (second["devices"], second["next"]) == ([], None)

    @pytest.mark.parametrize(
        "query", ["status=asleep", "stale=yes", "page=nonsense", "page=%00", f"q={'x' * 257}", f"model={'x' * 129}"]
    )
    async def test_what_is_no_query(self, fleet: Caller, query: str) -> None:
        is_refused(await fleet("GET", f"/devices?{query}"), 422)


class TestState:
    async def test_each_key_with_its_age(self, fleet: Caller, device: Device, say: Callable[..., None]) -> None:
        say(device, ago_us=3 * MINUTE_US, telemetries={"temp": 20, "fan": True})
        say(device, ago_us=MINUTE_US, telemetries={"temp": 21.5, "": "x", "a/b.😀": "y"})
        answer = is_good(await fleet("GET", f"/devices/{device.id}/state"))
        assert (answer["status"], answer["stale"]) == ("online", False)
        values = {key: one["value"] for key, one in answer["state"].items()}
        assert values == {"temp": 21.5, "fan": True, "": "x", "a/b.😀": "y", "status": "online"}
        assert answer["state"]["temp"]["age_s"] == pytest.approx(60, abs=5)
        assert answer["state"]["fan"]["age_s"] == pytest.approx(180, abs=5)
        assert answer["state"]["temp"]["at"].endswith("Z")

    async def test_of_a_moment(self, fleet: Caller, device: Device, say: Callable[..., None]) -> None:
        say(device, timestamp="2026-01-31T12:00:00Z", telemetries={"temp": 20})
        say(device, "error", timestamp="2026-01-31T12:05:00Z", telemetries={"temp": 30})
        path = f"/devices/{device.id}/state"
        for at, temp, status, stale in (
            ("2026-01-31T12:00:04Z", 20, "online", False),
            ("2026-01-31T12:00:04", 20, "online", False),
            ("2026-01-31T13:05:04%2B01:00", 30, "error", False),
            ("2026-01-31T12:04:59Z", 20, "offline", True),
        ):
            answer = is_good(await fleet("GET", f"{path}?at={at}"))
            assert (answer["state"]["temp"]["value"], answer["status"], answer["stale"]) == (temp, status, stale), at
        assert is_good(await fleet("GET", f"{path}?at=2026-01-31T12:00:04Z"))["state"]["temp"]["age_s"] == 4
        before = is_good(await fleet("GET", f"{path}?at=2026-01-31T11:00:00Z"))
        assert before == {"state": {}, "status": "offline", "stale": True}

    async def test_of_a_device_that_has_said_nothing(self, fleet: Caller, device: Device) -> None:
        answer = is_good(await fleet("GET", f"/devices/{device.id}/state"))
        assert answer == {"state": {}, "status": None, "stale": False}

    @pytest.mark.parametrize("at", ["yesterday", "2026-02-30", "99999-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00"])
    async def test_no_moment(self, fleet: Caller, device: Device, at: str) -> None:
        is_refused(await fleet("GET", f"/devices/{device.id}/state?at={at}"), 422)


class TestHistory:
    async def test_oldest_first(self, fleet: Caller, device: Device, say: Callable[..., None]) -> None:
        for minute, value in ((5, 30), (0, 20), (9, None), (7, "hot")):
            say(device, timestamp=f"2026-01-31T12:0{minute}:00Z", telemetries={"a b": value})
        path = f"/devices/{device.id}/history"
        window = "from=2026-01-31T12:00:00Z&to=2026-01-31T13:00:00Z"
        points = is_good(await fleet("GET", f"{path}?key=a%20b&{window}"))["points"]
        assert points == [
            {"at": "2026-01-31T12:00:00.000000Z", "value": 20},
            {"at": "2026-01-31T12:05:00.000000Z", "value": 30},
            {"at": "2026-01-31T12:07:00.000000Z", "value": "hot"},
        ]
        assert is_good(await fleet("GET", f"{path}?key=&{window}")) == {"points": []}

    async def test_of_the_last_day_unless_told(self, fleet: Caller, device: Device, say: Callable[..., None]) -> None:
        say(device, ago_us=25 * 60 * MINUTE_US, telemetries={"a": 1})
        say(device, ago_us=23 * 60 * MINUTE_US, telemetries={"a": 2})
        points = is_good(await fleet("GET", f"/devices/{device.id}/history?key=a"))["points"]
        assert [one["value"] for one in points] == [2]

    @pytest.mark.parametrize(
        "query",
        ["", "key=a&from=soon", "key=a&to=soon", "key=a&from=2026-02-01&to=2026-01-01", f"key={'k' * 1_001}"],
    )
    async def test_what_is_no_query(self, fleet: Caller, device: Device, query: str) -> None:
        is_refused(await fleet("GET", f"/devices/{device.id}/history?{query}"), 422)


class TestClickHouseAway:
    @pytest.mark.parametrize(
        "path", ["/devices", "/devices/{}", "/devices/{}/state", "/devices/{}/history?key=a", "/stream?device={}"]
    )
    async def test_is_503(self, fleet: Caller, device: Device, device_store: MemoryStore, path: str) -> None:
        device_store.away = True
        assert "secret-host" not in is_refused(await fleet("GET", path.format(device.id)), 503)

    async def test_devices_fetch_all_the_same(self, device: Device, device_store: MemoryStore) -> None:
        device_store.away = True
        is_good(await device.call("GET", "/config"))


class TestToFetch:
    async def test_commands_with_their_history(self, fleet: Caller, device: Device) -> None:
        path = f"/devices/{device.id}/commands"
        given = is_good(await fleet("POST", path, {"name": "reboot", "parameters": {"in_s": 5}}), 201)
        assert (given["status"], given["parameters"], given["device_id"]) == ("pending", {"in_s": 5}, device.id)
        later = is_good(await fleet("POST", path, {"name": "update"}), 201)
        is_good(await device.call("POST", "/command", {"status": "failed", "message": "no power"}))
        commands = is_good(await fleet("GET", path))["commands"]
        assert [(one["id"], one["name"], one["status"], one["message"]) for one in commands] == [
            (later["id"], "update", "pending", ""),
            (given["id"], "reboot", "failed", "no power"),
        ]
        assert commands[1]["ended_at"] is not None

    async def test_licences_with_their_history(self, fleet: Caller, device: Device, other: Device) -> None:
        path = f"/devices/{device.id}/licenses"
        given = is_good(await fleet("POST", path, {"data": "d", "signature": "s", "action": "add"}), 201)
        assert given["state"] is None
        for state, error in (("error", "no room"), ("inuse", "")):
            is_good(await device.call("POST", "/licenses", {"id": given["id"], "state": state, "error": error}))
        [shown] = is_good(await fleet("GET", path))["licenses"]
        assert (shown["id"], shown["state"], shown["error"]) == (given["id"], "inuse", "")
        steps = is_good(await fleet("GET", f"{path}/{given['id']}/history"))["history"]
        assert [(one["state"], one["error"]) for one in steps] == [("error", "no room"), ("inuse", "")]
        is_refused(await fleet("GET", f"/devices/{other.id}/licenses/{given['id']}/history"), 404)

    async def test_versions_of_a_configuration(self, fleet: Caller, device: Device) -> None:
        path = f"/devices/{device.id}/config"
        versions = [is_good(await fleet("PUT", path, {"name": "day", "config": {"n": n}}))["version"] for n in range(3)]
        assert versions == [1, 2, 3]
        assert is_good(await fleet("GET", f"/devices/{device.id}"))["config"]["content"] == {"n": 2}

    async def test_revoking_twice_is_as_once(self, fleet: Caller, device: Device) -> None:
        for _ in range(2):
            assert is_good(await fleet("POST", f"/devices/{device.id}/revoke")) == {"revoked": True}
        await asyncio.sleep(1)
        is_refused(await device.call("GET", "/config"), 403)
        assert is_good(await fleet("GET", f"/devices/{device.id}"))["revoked_at"] is not None

    @pytest.mark.parametrize(
        ("method", "path", "sent"),
        [
            ("PUT", "config", {}),
            ("PUT", "config", {"name": "n"}),
            ("PUT", "config", {"name": "", "config": {}}),
            ("PUT", "config", {"name": "n", "config": []}),
            ("PUT", "config", b"[]"),
            ("PUT", "config", b'{"name":"n","config":' + b'{"a":' * 100 + b"1" + b"}" * 101),
            ("POST", "commands", {}),
            ("POST", "commands", {"name": ""}),
            ("POST", "commands", {"name": "a\u0000"}),
            ("POST", "commands", {"name": "n", "parameters": 5}),
            ("POST", "commands", b"nonsense"),
            ("POST", "licenses", {"data": "d", "signature": "s", "action": "keep"}),
            ("POST", "licenses", {"data": "d", "signature": "s"}),
            ("POST", "licenses", {"data": "d", "signature": "s", "action": "add", "expires_at": "soon"}),
            (
                "POST",
                "licenses",
                {"data": "d", "signature": "s", "action": "add", "expires_at": "9999-12-31T23:00:00-02:00"},
            ),
            ("POST", "claim", {}),
            ("POST", "claim", {"space": "B2"}),
        ],
    )
    async def test_what_is_refused(self, fleet: Caller, device: Device, method: str, path: str, sent: Any) -> None:
        is_refused(await fleet(method, f"/devices/{device.id}/{path}", sent), 422)


class TestModels:
    async def test_models_and_their_files(self, fleet: Caller, hardware_key: str) -> None:
        answer = await fleet("GET", "/models")
        [model] = is_good(answer)["models"]
        assert (model["name"], model["interval_s"]) == ("hub-100", 10)
        assert hardware_key not in answer.text
        made = []
        for version in ("1.0.0", "0.9.0"):
            params = {"version": version, "name": "image.bin"}
            made.append(is_good(await fleet("POST", "/models/hub-100/files", b"x", params=params), 201))
        assert is_good(await fleet("GET", "/models/hub-100/files"))["files"] == made[::-1]

    @pytest.mark.parametrize(
        "query",
        [
            "name=n",
            "version=1.0.0",
            "version=1.0.0&name=",
            "version=1.0&name=n",
            "version=v1.0.0&name=n",
            "version=1.0.0&name=%00",
            "version=1.0.0&name=n&rollout_percent=101",
            "version=1.0.0&name=n&rollout_percent=some",
            "version=1.0.0&name=n&file_type=A/B",
        ],
    )
    async def test_what_is_refused(self, services: Services, fleet: Caller, hardware_key: str, query: str) -> None:
        is_refused(await fleet("POST", f"/models/hub-100/files?{query}", b"file"), 422)
        assert services.control.files.list_all("hub-100") == []

    async def test_nothing_stays_of_a_file_that_is_refused(
        self, settings: Settings, services: Services, fleet: Caller, hardware_key: str
    ) -> None:
        path = "/models/hub-100/files?version=1.0.0&name=n"
        is_refused(await fleet("POST", path, b""), 422)
        kept = is_good(await fleet("POST", path, b"file"), 201)
        is_refused(await fleet("POST", path, b"file"), 422)  # this version is there
        object.__setattr__(services, "settings", settings.model_copy(update={"max_device_file_bytes": 2_000}))
        is_refused(await fleet("POST", "/models/hub-100/files?version=2.0.0&name=n", b"x" * 2_001), 413)

        async def stalled() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(1)

        object.__setattr__(services, "settings", settings.model_copy(update={"body_timeout_ms": 100}))
        url = "/v1/fleet/models/hub-100/files?version=2.0.0&name=n"
        headers = {"Authorization": fleet.key or ""}
        is_refused(await fleet.client.post(url, content=stalled(), headers=headers), 408)
        assert [one.name for one in services.control.firmware.path_of("x").parent.iterdir()] == [kept["id"]]

    @pytest.mark.parametrize("sent", [{}, {"rollout_percent": 101}, {"rollout_percent": "5"}, {"rollout_percent": -1}])
    async def test_a_share_that_is_none(self, fleet: Caller, hardware_key: str, sent: Any) -> None:
        params = {"version": "1.0.0", "name": "n"}
        made = is_good(await fleet("POST", "/models/hub-100/files", b"x", params=params), 201)
        is_refused(await fleet("PATCH", f"/models/hub-100/files/{made['id']}", sent), 422)
