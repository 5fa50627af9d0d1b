"""What devices call besides their reports: every path, every refusal in the form ``{"error": text}``."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from midstream.registry.fleet.devices import INFO_UPDATES_AN_HOUR
from midstream.registry.fleet.told import MAX_DUMPS
from midstream.settings import Settings
from serve.app import create_app
from serve.services import Services

from .fleet import Caller, Device, is_good, is_refused

Register = Callable[..., Awaitable[Device]]

NO_OBJECT = [b"", b"{", b"\xff", b"[]", b"null", b'"x"', b"[" * 3_000, b'{"a":' * 200 + b"1" + b"}" * 200]

GUARDED = [
    ("PATCH", "", {"name": "x"}),
    ("GET", "/config", None),
    ("POST", "/config", {"version": 0, "config": {}}),
    ("GET", "/command", None),
    ("POST", "/command", {"status": "done"}),
    ("GET", "/licenses", None),
    ("POST", "/licenses", {"id": "x", "state": "inuse"}),
    ("GET", "/space", None),
    ("GET", "/files", None),
    ("GET", "/files/x", None),
    ("GET", "/files/x/content", None),
    ("POST", "/events", {"a": 1}),
    ("POST", "/dumps", b"dump"),
]


class TestRegister:
    async def test_a_device_is_given_its_key(self, client: httpx.AsyncClient, hardware_key: str) -> None:
        sent = {
            "sn": "SN-1",
            "firmware_version": "1.2.3",
            "hardware_key": hardware_key,
            "cloud_id": "c",
            "name": "Hall",
            "details": {"ports": [1, 2]},
            "sub_model": "b",
            "something": "else",
        }
        reply = is_good(await client.post("/v1/devices", json=sent), 201)
        assert set(reply) == {"id", "access_key", "hub_url"}
        assert reply["hub_url"] == "http://midstream"
        call = Caller(client, reply["access_key"], f"/v1/devices/{reply['id']}")
        assert is_good(await call("GET", "/config"))["version"] == 0

    async def test_a_url_that_is_set_is_told(
        self, settings: Settings, services: Services, client: httpx.AsyncClient, hardware_key: str
    ) -> None:
        object.__setattr__(services, "settings", settings.model_copy(update={"public_url": "https://hub.example/a/"}))
        sent = {"sn": "SN-1", "firmware_version": "1", "hardware_key": hardware_key, "mac": "m"}
        assert is_good(await client.post("/v1/devices", json=sent), 201)["hub_url"] == "https://hub.example/a"

    async def test_twice(self, client: httpx.AsyncClient, hardware_key: str) -> None:
        sent = {"sn": "SN-1", "firmware_version": "1", "hardware_key": hardware_key, "mac": "m"}
        is_good(await client.post("/v1/devices", json=sent), 201)
        assert "already registered" in is_refused(await client.post("/v1/devices", json=sent), 422)

    async def test_an_unknown_hardware_key(self, client: httpx.AsyncClient) -> None:
        for key in ("nobody's", "", "\u0000"):
            sent = {"sn": "SN-1", "firmware_version": "1", "hardware_key": key, "mac": "m"}
            is_refused(await client.post("/v1/devices", json=sent), 404)

    @pytest.mark.parametrize("missing", ["sn", "firmware_version", "hardware_key", "mac"])
    async def test_something_required_is_missing(
        self, client: httpx.AsyncClient, hardware_key: str, missing: str
    ) -> None:
        sent = {"sn": "SN-1", "firmware_version": "1", "hardware_key": hardware_key, "mac": "m"}
        del sent[missing]
        assert missing in is_refused(await client.post("/v1/devices", json=sent), 422)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"sn": ""},
            {"sn": 5},
            {"sn": "x" * 257},
            {"sn": "a\u0000b"},
            {"mac": "x" * 65},
            {"mac": ""},
            {"firmware_version": "x" * 129},
            {"details": []},
            {"details": "x"},
            {"name": {}},
            {"parent_id": "nobody"},
            {"sn": None},
        ],
    )
    async def test_what_cannot_be_kept(
        self, client: httpx.AsyncClient, hardware_key: str, wrong: dict[str, Any]
    ) -> None:
        sent = {"sn": "SN-1", "firmware_version": "1", "hardware_key": hardware_key, "mac": "m", **wrong}
        is_refused(await client.post("/v1/devices", json=sent), 422)

    @pytest.mark.parametrize("sent", NO_OBJECT)
    async def test_no_object(self, client: httpx.AsyncClient, sent: bytes) -> None:
        is_refused(await client.post("/v1/devices", content=sent), 422)

    async def test_too_large(self, client: httpx.AsyncClient) -> None:
        is_refused(await client.post("/v1/devices", json={"sn": "x" * 300_000}), 413)


class TestWhoCalls:
    @pytest.mark.parametrize(("method", "path", "sent"), GUARDED)
    async def test_every_call_needs_the_devices_own_key(
        self, client: httpx.AsyncClient, device: Device, other: Device, method: str, path: str, sent: Any
    ) -> None:
        for key in (None, "", "nobody's", f"Bearer {device.key}", "x" * 5_000):
            is_refused(await Caller(client, key, f"/v1/devices/{device.id}")(method, path, sent), 401)
        is_refused(await Caller(client, other.key, f"/v1/devices/{device.id}")(method, path, sent), 403)
        for nobody in (str(uuid4()), "x", "%00", "😀"):
            is_refused(await Caller(client, device.key, f"/v1/devices/{nobody}")(method, path, sent), 403)
            is_refused(await Caller(client, "nobody's", f"/v1/devices/{nobody}")(method, path, sent), 401)

    @pytest.mark.parametrize(("method", "path", "sent"), GUARDED)
    async def test_a_revoked_key(self, services: Services, device: Device, method: str, path: str, sent: Any) -> None:
        services.control.devices.revoke(device.id)
        assert "revoked" in is_refused(await device.call(method, path, sent), 403)

    async def test_a_call_moves_last_seen(self, services: Services, device: Device) -> None:
        before = services.control.devices.get(device.id).last_seen_at
        await device.call("GET", "/space")
        await asyncio.sleep(1.5)
        after = services.control.devices.get(device.id).last_seen_at
        assert before is not None
        assert after is not None
        assert after > before


class TestConfig:
    async def test_a_device_fetches_and_posts_back(self, fleet: Caller, device: Device) -> None:
        assert is_good(await device.call("GET", "/config")) == {
            "name": "",
            "version": 0,
            "last_updated": None,
            "config": {},
            "device_id": device.id,
        }
        is_good(await fleet("PUT", f"/devices/{device.id}/config", {"name": "day", "config": {"v": [1, {"a": None}]}}))
        config = is_good(await device.call("GET", "/config"))
        assert (config["name"], config["version"], config["config"]) == ("day", 1, {"v": [1, {"a": None}]})
        assert config["last_updated"].endswith("Z")
        is_good(await device.call("POST", "/config", config))
        assert is_good(await device.call("GET", "/config")) == config  # or it would fetch for ever
        assert is_good(await fleet("GET", f"/devices/{device.id}"))["applied_config_version"] == 1

    async def test_a_stale_one(self, fleet: Caller, device: Device) -> None:
        for n in range(2):
            is_good(await fleet("PUT", f"/devices/{device.id}/config", {"name": "day", "config": {"n": n}}))
        for version in (0, 1, 3):
            is_refused(await device.call("POST", "/config", {"version": version, "config": {}}), 422)

    @pytest.mark.parametrize(
        "sent",
        [
            {},
            {"version": 0},
            {"config": {}},
            {"version": "0", "config": {}},
            {"version": 0, "config": []},
            {"version": -1, "config": {}},
            {"version": 2**40, "config": {}},
            *NO_OBJECT,
        ],
    )
    async def test_what_is_none(self, device: Device, sent: Any) -> None:
        is_refused(await device.call("POST", "/config", sent), 422)


class TestCommand:
    async def test_first_in_first_out(self, fleet: Caller, device: Device) -> None:
        assert is_good(await device.call("GET", "/command")) == {}
        ids = []
        for name in ("reboot", "update"):
            given = is_good(
                await fleet("POST", f"/devices/{device.id}/commands", {"name": name, "parameters": {"n": 1}}), 201
            )
            ids.append(given["id"])
        for id_, name in zip(ids, ("reboot", "update"), strict=True):
            expected = {"id": id_, "device_id": device.id, "name": name, "parameters": {"n": 1}}
            for _ in range(2):  # to look changes nothing
                assert is_good(await device.call("GET", "/command")) == {**expected, "status": "pending"}
            is_good(await device.call("POST", "/command", {"status": "in_progress"}))
            assert is_good(await device.call("GET", "/command")) == {**expected, "status": "in_progress"}
            is_good(await device.call("POST", "/command", {"status": "done", "message": "well", "id": id_}))
        assert is_good(await device.call("GET", "/command")) == {}

    async def test_finished_twice(self, fleet: Caller, device: Device) -> None:
        given = is_good(await fleet("POST", f"/devices/{device.id}/commands", {"name": "reboot"}), 201)
        done = {"status": "done", "id": given["id"]}
        is_good(await device.call("POST", "/command", done))
        assert "done" in is_refused(await device.call("POST", "/command", done), 422)
        is_refused(await device.call("POST", "/command", {"status": "done"}), 422)

    async def test_of_many_equal_posts_one_is_taken(self, fleet: Caller, device: Device) -> None:
        is_good(await fleet("POST", f"/devices/{device.id}/commands", {"name": "reboot"}), 201)
        asking = [device.call("POST", "/command", {"status": "in_progress"}) for _ in range(20)]
        statuses = sorted(reply.status_code for reply in await asyncio.gather(*asking))
        assert statuses == [200] + [422] * 19

    async def test_another_devices(self, fleet: Caller, device: Device, other: Device) -> None:
        given = is_good(await fleet("POST", f"/devices/{device.id}/commands", {"name": "reboot"}), 201)
        for id_ in (given["id"], "nothing", "\u0000"):
            is_refused(await other.call("POST", "/command", {"status": "done", "id": id_}), 404)

    @pytest.mark.parametrize(
        "sent",
        [
            {},
            {"status": "pending"},
            {"status": "finished"},
            {"status": None},
            {"status": "done", "message": 5},
            {"status": "done", "message": "x" * (128 * 1024 + 1)},
            {"status": "done", "id": 5},
            {"status": "done"},
            *NO_OBJECT,
        ],
    )
    async def test_what_is_none(self, device: Device, sent: Any) -> None:
        is_refused(await device.call("POST", "/command", sent), 422)


class TestLicenses:
    async def test_listed_until_reported(self, fleet: Caller, device: Device) -> None:
        given = {"data": "d", "signature": "s", "action": "add", "expires_at": "2030-01-01T02:00:00+02:00"}
        first = is_good(await fleet("POST", f"/devices/{device.id}/licenses", given), 201)
        second = is_good(
            await fleet("POST", f"/devices/{device.id}/licenses", {"data": "", "signature": "", "action": "remove"}),
            201,
        )
        assert is_good(await device.call("GET", "/licenses")) == [
            {
                "id": first["id"],
                "data": "d",
                "signature": "s",
                "action": "add",
                "add": True,
                "expires_at": "2030-01-01T00:00:00.000Z",
            },
            {"id": second["id"], "data": "", "signature": "", "action": "remove", "remove": True, "expires_at": None},
        ]
        is_good(await device.call("POST", "/licenses", {"id": first["id"], "state": "error", "error": "no room"}))
        assert [one["id"] for one in is_good(await device.call("GET", "/licenses"))] == [second["id"]]

    @pytest.mark.parametrize("state", ["active", "", "INUSE", "new"])
    async def test_another_state(self, fleet: Caller, device: Device, state: str) -> None:
        given = {"data": "d", "signature": "s", "action": "update"}
        id_ = is_good(await fleet("POST", f"/devices/{device.id}/licenses", given), 201)["id"]
        reply = await device.call("POST", "/licenses", {"id": id_, "state": state})
        assert is_refused(reply, 403) == "Only allowed to set: inuse/removed/error"

    async def test_another_devices(self, fleet: Caller, device: Device, other: Device) -> None:
        given = {"data": "d", "signature": "s", "action": "update"}
        id_ = is_good(await fleet("POST", f"/devices/{device.id}/licenses", given), 201)["id"]
        for sought in (id_, "nothing", "\u0000"):
            is_refused(await other.call("POST", "/licenses", {"id": sought, "state": "inuse"}), 404)

    @pytest.mark.parametrize(
        "sent", [{}, {"id": "x"}, {"state": "inuse"}, {"id": 5, "state": "inuse"}, {"id": "x", "state": 5}, *NO_OBJECT]
    )
    async def test_what_is_none(self, device: Device, sent: Any) -> None:
        is_refused(await device.call("POST", "/licenses", sent), 422)


class TestInfo:
    async def test_what_changed_is_kept(self, fleet: Caller, device: Device) -> None:
        sent = {
            "firmware_version": "2.0.0",
            "name": "Stage",
            "sub_model": "b",
            "details": {"x": 1},
            "space_version": 3,
            "config_version": 4,
        }
        assert is_good(await device.call("PATCH", "", sent)) == {"status": True, "info_version": 2}
        shown = is_good(await fleet("GET", f"/devices/{device.id}"))
        assert {name: shown[name] for name in ("firmware_version", "name", "sub_model", "details")} == {
            name: sent[name] for name in ("firmware_version", "name", "sub_model", "details")
        }
        assert (shown["said_space_version"], shown["said_config_version"]) == (3, 4)
        assert is_good(await device.call("PATCH", "", {}))["info_version"] == 3
        assert is_good(await fleet("GET", f"/devices/{device.id}"))["name"] == "Stage"

    async def test_the_eleventh_in_the_hour(self, device: Device) -> None:
        for _ in range(INFO_UPDATES_AN_HOUR):
            is_good(await device.call("PATCH", "", {"name": "x"}))
        is_refused(await device.call("PATCH", "", {"name": "y"}), 429)

    @pytest.mark.parametrize(
        "sent",
        [
            {"firmware_version": 1},
            {"name": "x" * 257},
            {"name": "\u0000"},
            {"details": "x"},
            {"space_version": -1},
            {"config_version": 2**31},
            *NO_OBJECT,
        ],
    )
    async def test_what_is_none(self, device: Device, sent: Any) -> None:
        is_refused(await device.call("PATCH", "", sent), 422)


class TestFiles:
    async def upload(self, fleet: Caller, version: str, content: bytes = b"firmware", **more: Any) -> dict[str, Any]:
        params = {"version": version, "name": "image.bin", **more}
        reply = await fleet("POST", "/models/hub-100/files", content, params=params)
        return dict(is_good(reply, 201))

    async def test_what_is_uploaded_can_be_fetched_with_the_devices_key(
        self, client: httpx.AsyncClient, fleet: Caller, device: Device, other: Device
    ) -> None:
        content = bytes(range(256)) * 20_000
        made = await self.upload(fleet, "1.3.4", content, desc="new", signature="sig")
        assert made["checksum"] == hashlib.sha256(content).hexdigest()
        expected = {
            "id": made["id"],
            "name": "image.bin",
            "url": f"http://midstream/v1/devices/{device.id}/files/{made['id']}/content",
            "desc": "new",
            "file_type": "firmware",
            "version": "1.3.4",
            "checksum": made["checksum"],
            "signature": "sig",
        }
        assert is_good(await device.call("GET", "/files")) == [expected]
        assert is_good(await device.call("GET", f"/files/{made['id']}")) == expected
        got = await client.get(expected["url"], headers={"Authorization": device.key})
        assert got.content == content
        part = await client.get(expected["url"], headers={"Authorization": device.key, "Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, content[100:200])
        is_refused(await client.get(expected["url"], headers={"Authorization": other.key}), 403)

    async def test_a_file_that_is_not_there(self, services: Services, fleet: Caller, device: Device) -> None:
        hidden = await self.upload(fleet, "2.0.0", rollout_percent=0)
        for id_ in ("nothing", "%00", hidden["id"]):
            is_refused(await device.call("GET", f"/files/{id_}"), 404)
            is_refused(await device.call("GET", f"/files/{id_}/content"), 404)
        lost = await self.upload(fleet, "1.0.0")
        services.control.firmware.path_of(lost["id"]).unlink()
        is_refused(await device.call("GET", f"/files/{lost['id']}/content"), 503)

    async def test_a_staged_roll_out(self, services: Services, fleet: Caller, register: Register) -> None:
        old, new = await self.upload(fleet, "1.9.0"), await self.upload(fleet, "1.10.0", rollout_percent=0)
        devices = [await register(f"R{n}") for n in range(12)]

        async def latest() -> list[tuple[str | None, str | None]]:
            known = [await services.device_cache.get(one.id) for one in devices]
            return [(one.flags.latest_fw_version, one.flags.latest_fw_file_id) for one in known if one is not None]

        assert await latest() == [("1.9.0", old["id"])] * 12
        path = f"/models/hub-100/files/{new['id']}"
        assert is_good(await fleet("PATCH", path, {"rollout_percent": 100}))["rollout_percent"] == 100
        await asyncio.sleep(1)
        assert await latest() == [("1.10.0", new["id"])] * 12


class TestTold:
    async def test_events_are_kept_for_the_operator(self, fleet: Caller, device: Device) -> None:
        sent = {"type": "door", "": [{"\u0000": "😀"}, None, 1.5]}
        assert is_good(await device.call("POST", "/events", sent)) == {"status": True}
        [event] = is_good(await fleet("GET", f"/devices/{device.id}/events"))["events"]
        assert event["event"] == sent

    @pytest.mark.parametrize("sent", NO_OBJECT)
    async def test_an_event_that_is_none(self, device: Device, sent: bytes) -> None:
        is_refused(await device.call("POST", "/events", sent), 422)

    async def test_an_event_that_is_too_large(self, device: Device) -> None:
        is_refused(await device.call("POST", "/events", {"x": "y" * 65_536}), 413)

    async def test_dumps_are_kept_for_the_operator(
        self, services: Services, client: httpx.AsyncClient, fleet: Caller, device: Device, other: Device
    ) -> None:
        contents = [b"dump %d \x00\xff" % n for n in range(MAX_DUMPS + 2)]
        for content in contents:
            assert is_good(await device.call("POST", "/dumps", content)) == {"status": True}
        dumps = is_good(await fleet("GET", f"/devices/{device.id}/dumps"))["dumps"]
        assert len(dumps) == MAX_DUMPS
        for dump, content in zip(dumps, reversed(contents), strict=False):
            got = await fleet("GET", f"/devices/{device.id}/dumps/{dump['id']}")
            assert got.content == content
            assert (dump["size"], dump["checksum"]) == (len(content), hashlib.sha256(content).hexdigest())
        is_refused(await fleet("GET", f"/devices/{other.id}/dumps/{dumps[0]['id']}"), 404)
        kept = {path.name for path in services.control.dumps.path_of("x").parent.iterdir()}
        assert kept == {dump["id"] for dump in dumps}

    async def test_a_dump_that_is_too_large_leaves_nothing(
        self, settings: Settings, services: Services, device: Device
    ) -> None:
        object.__setattr__(services, "settings", settings.model_copy(update={"max_dump_bytes": 3_000_000}))
        is_refused(await device.call("POST", "/dumps", b"x" * 3_000_001), 413)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x" * 1_000_000

        headers = {"Authorization": device.key}
        is_refused(
            await device.call.client.post(f"/v1/devices/{device.id}/dumps", content=pieces(), headers=headers), 413
        )
        assert list(services.control.dumps.path_of("x").parent.iterdir()) == []

    async def test_space(self, fleet: Caller, device: Device) -> None:
        assert is_good(await device.call("GET", "/space")) == {"space_data_version": 0, "space": None}
        claimed = await fleet("POST", f"/devices/{device.id}/claim", {"space": {"room": "B2"}})
        assert is_good(claimed) == {"space_data_version": 1}
        assert is_good(await device.call("GET", "/space")) == {"space_data_version": 1, "space": {"room": "B2"}}


class TestForm:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v1/devices", 405),
            ("DELETE", "/v1/devices/x", 405),
            ("PUT", "/v1/devices/x/config", 405),
            ("GET", "/v1/devices/x/nothing", 404),
            ("GET", "/v1/devices/x/y/z/w", 404),
            ("GET", "/v1/fleet/nothing", 404),
            ("DELETE", "/v1/fleet/devices", 405),
        ],
    )
    async def test_of_what_is_not_there(self, client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
        is_refused(await client.request(method, path), status)

    async def test_of_a_fault_of_ours(
        self, services: Services, client: httpx.AsyncClient, device: Device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> Any:
            raise ZeroDivisionError("inner words")

        monkeypatch.setattr(services.control.configs, "get", broken)
        assert "inner words" not in is_refused(await device.call("GET", "/config"), 500)

    async def test_others_keep_theirs(self, client: httpx.AsyncClient) -> None:
        reply = await client.get("/v1/devicesx")
        assert set(reply.json()) == {"code", "message"}


@pytest.fixture
async def without_registry(settings: Settings, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The api, its registry away."""
    from dataclasses import replace

    from midstream.registry.fleet.cache import FlagsCache
    from serve.control import Control

    away = settings.model_copy(update={"registry": "postgresql+psycopg://nobody@127.0.0.1:1/none"})
    control, cache = Control(away), FlagsCache(away)
    await cache.start()
    app = create_app(away, services=replace(services, control=control, device_cache=cache))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as client:
        yield client
    await cache.close()
    control.close()


class TestRegistryAway:
    @pytest.mark.parametrize(("method", "path", "sent"), GUARDED)
    async def test_no_device_is_told_that_it_was_removed(
        self, without_registry: httpx.AsyncClient, device: Device, method: str, path: str, sent: Any
    ) -> None:
        for key in (device.key, "nobody's"):
            is_refused(await Caller(without_registry, key, f"/v1/devices/{device.id}")(method, path, sent), 503)

    async def test_registering(self, without_registry: httpx.AsyncClient, hardware_key: str) -> None:
        sent = {"sn": "SN-1", "firmware_version": "1", "hardware_key": hardware_key, "mac": "m"}
        is_refused(await without_registry.post("/v1/devices", json=sent), 503)

    async def test_without_its_tables(self, services: Services, device: Device) -> None:
        """A registry that answers, and that nobody can read."""
        await asyncio.sleep(0.6)
        with services.control._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE device_changes RENAME TO elsewhere")
            connection.exec_driver_sql("ALTER TABLE devices RENAME TO gone")
        await asyncio.sleep(1.2)
        is_refused(await device.call("GET", "/config"), 503)


def test_what_is_guarded_is_every_call_of_a_device(settings: Settings, services: Services) -> None:
    document = create_app(settings, services=services).openapi()
    paths = {
        (method.upper(), path.removeprefix("/v1/devices/{device_id}").replace("{file_id}", "x"))
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/v1/devices/{device_id}") and not path.endswith("/telemetry")
    }
    assert paths == {(method, path) for method, path, _ in GUARDED}
    assert json.dumps(document).count('"device"') >= len(GUARDED)
