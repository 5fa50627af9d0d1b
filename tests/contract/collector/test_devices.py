"""What devices report: durable in Kafka before the 200, every refusal in the form ``{"error": text}``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine

from ingest.collector import Collector
from midstream.devices.record import decode_report
from midstream.devices.report import Report, read_timestamp
from midstream.kafka.producer import RecordTooLarge
from midstream.registry.engine import open_engine
from midstream.registry.fleet.commands import Commands
from midstream.registry.fleet.configs import Configs
from midstream.registry.fleet.devices import Devices, Registered, Registration
from midstream.registry.fleet.models import Models, NewModel
from midstream.settings import Settings

from .conftest import serving
from .doubles import NOT_PUBLISHED, OUTCOME_UNKNOWN, MemoryPublisher

MANY = "/v1/devices/telemetry"
GOOD = {"status": "online", "telemetries": {"temp": 21.5}}


@pytest.fixture(scope="session")
def engine(home: Path) -> Iterator[Engine]:
    opened = open_engine(Settings(home=home, registry=""))
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def model(engine: Engine) -> NewModel:
    return Models(engine).create("hub-100", 10)


def register(engine: Engine, model: NewModel) -> Registered:
    return Devices(engine).register(Registration(str(uuid4()), "1.0.0", model.hardware_key, cloud_id="c"))


@pytest.fixture(scope="session")
def device(engine: Engine, model: NewModel) -> Registered:
    return register(engine, model)


@pytest.fixture(scope="session")
def other(engine: Engine, model: NewModel) -> Registered:
    return register(engine, model)


@pytest.fixture
async def client(settings: Settings, publisher: MemoryPublisher) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings, publisher) as opened:
        yield opened


def path_of(device: Registered) -> str:
    return f"/v1/devices/{device.id}/telemetry"


async def report(
    client: httpx.AsyncClient, device: Registered, sent: Any = GOOD, key: str | None = None
) -> httpx.Response:
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    key = device.access_key if key is None else key
    return await client.post(path_of(device), content=content, headers={"Authorization": key} if key else {})


def is_refused(reply: httpx.Response, status: int) -> str:
    """Check a refusal's form; return its words."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json()) == {"error"}
    if status in (429, 503):
        assert int(reply.headers["retry-after"]) >= 1
    return str(reply.json()["error"])


def kept(publisher: MemoryPublisher) -> list[Report]:
    reports = [decode_report(value) for _, value in publisher.reports]
    assert [one.device_id.encode() for one in reports] == [key for key, _ in publisher.reports]
    return reports


class TestOne:
    async def test_a_report_is_durable_and_its_reply_has_the_flags(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, device: Registered
    ) -> None:
        before_us = time.time_ns() // 1_000
        sent = {
            "status": "error",
            "timestamp": "2026-01-31T12:00:00Z",
            "telemetries": {"a": 1, "b": 0.5, "c": True, "d": "x", "e": None},
            "message": "hot",
            "override": True,
        }
        reply = await report(client, device, sent)
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.json() == {
            "success": True,
            "config_version": 0,
            "command": False,
            "new_licenses": False,
            "info_version": 1,
            "latest_fw_version": None,
            "latest_fw_file_id": None,
            "space_data_version": 0,
        }
        [one] = kept(publisher)
        assert one.values == {**sent["telemetries"], "status": "error"}  # type: ignore[dict-item]
        assert (one.device_id, one.message, one.override) == (device.id, "hot", True)
        assert one.timestamp_us == read_timestamp(sent["timestamp"])
        assert before_us <= one.received_at_us <= time.time_ns() // 1_000

    async def test_more_reports_than_one_device_may_send_are_429(
        self, settings: Settings, device: Registered, other: Registered
    ) -> None:
        changed = settings.model_copy(update={"rate_limit_per_s": 2.0})
        async with serving(changed, MemoryPublisher()) as client:
            replies = [await report(client, device) for _ in range(3)]
            assert [reply.status_code for reply in replies] == [200, 200, 429]
            assert replies[2].json() == {"error": "Too many reports"}
            assert replies[2].headers["retry-after"] == "1"
            many = {one.id: {"access_token": one.access_key, **GOOD} for one in (device, other)}
            assert (await client.post(MANY, json=many)).json()[device.id] == {"error": "Too many reports"}
            assert (await report(client, other)).status_code == 200
            assert (await report(client, other)).status_code == 429

    async def test_nothing_is_answered_before_it_is_durable(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, device: Registered
    ) -> None:
        publisher.gate = asyncio.Event()
        asking = asyncio.create_task(report(client, device))
        await asyncio.sleep(0.2)
        assert len(publisher.reports) == 1
        assert not asking.done()
        publisher.gate.set()
        assert (await asking).status_code == 200

    async def test_flags_follow_the_operator_within_a_second(
        self, client: httpx.AsyncClient, engine: Engine, model: NewModel
    ) -> None:
        device = register(engine, model)
        assert (await report(client, device)).json()["config_version"] == 0
        Configs(engine).set(device.id, "day", {})
        Commands(engine).give(device.id, "reboot", {})
        await asyncio.sleep(1)
        flags = (await report(client, device)).json()
        assert (flags["config_version"], flags["command"]) == (1, True)

    @pytest.mark.parametrize(
        "telemetries",
        [
            {f"k{n}": n for n in range(10_000)},
            {"a.b": 1},
            {"a/b": 1},
            {"🌡️": 1},
            {"": 1},
            {"s": "x" * 1_000},
            {"n": 2**62, "f": -1e300, "t": True},
            {},
        ],
        ids=["10,000 keys", "dot", "slash", "emoji", "empty", "1,000 bytes", "numbers", "none"],
    )
    async def test_what_is_taken(
        self,
        client: httpx.AsyncClient,
        publisher: MemoryPublisher,
        device: Registered,
        telemetries: dict[str, Any],
    ) -> None:
        assert (await report(client, device, {"status": "online", "telemetries": telemetries})).status_code == 200
        assert kept(publisher)[0].values == {**telemetries, "status": "online"}

    @pytest.mark.parametrize(
        ("timestamp", "taken_us"),
        [
            ("2026-01-31T12:00:00", 1_769_860_800_000_000),
            ("2026-01-31T12:00:00.5+02:00", 1_769_853_600_500_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
            (None, None),
        ],
    )
    async def test_which_times_are_taken(
        self,
        client: httpx.AsyncClient,
        publisher: MemoryPublisher,
        device: Registered,
        timestamp: str | None,
        taken_us: int | None,
    ) -> None:
        reply = await report(client, device, {"status": "online", "timestamp": timestamp})
        assert reply.status_code == 200
        assert kept(publisher)[0].timestamp_us == taken_us

    @pytest.mark.parametrize(
        ("sent", "says"),
        [
            (b"", "The body must be JSON"),
            (b"{", "The body must be JSON"),
            (b"\xff", "The body must be JSON"),
            (b'{"status": "online", "telemetries": {"a": 1e999}}', "The body must be JSON"),
            (b'{"status": "online", "telemetries": {"a": NaN}}', "The body must be JSON"),
            (b"[" * 5_000, "The body must be JSON"),
            (b"[]", "The body must be a JSON object"),
            (b"null", "The body must be a JSON object"),
            ({}, "status must be online, offline or error"),
            ({"status": "asleep"}, "status must be online, offline or error"),
            (
                {"status": "online", "telemetries": {"fan": {"rpm": 1}}},
                "Common telemetries.fan must be string, number or boolean",
            ),
            (
                {"status": "online", "telemetries": {"fan": [1]}},
                "Common telemetries.fan must be string, number or boolean",
            ),
            (
                {"status": "online", "telemetries": {"s": "x" * 1_001}},
                "Common telemetries.s must not be longer than 1000 bytes",
            ),
            ({"status": "online", "message": "x" * 129 * 1024}, "message must not be longer than 131072 bytes"),
            (
                {"status": "online", "telemetries": {f"k{n}": n for n in range(10_001)}},
                "telemetries must not have more than 10000 keys",
            ),
            ({"status": "online", "override": "yes"}, "override must be true or false"),
            ({"status": "online", "timestamp": "yesterday"}, "timestamp must be a moment in ISO 8601"),
            ({"status": "online", "timestamp": "2026-02-30T00:00:00Z"}, "timestamp must be a moment in ISO 8601"),
            ({"status": "online", "timestamp": "99999-01-01T00:00:00Z"}, "timestamp must be a moment in ISO 8601"),
            ({"status": "online", "timestamp": 5}, "timestamp must be a string in ISO 8601"),
        ],
        ids=lambda value: None if isinstance(value, str) else "sent",
    )
    async def test_what_is_refused(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, device: Registered, sent: Any, says: str
    ) -> None:
        assert is_refused(await report(client, device, sent), 422).startswith(says)
        assert publisher.reports == []

    async def test_a_body_that_is_too_large(
        self, settings: Settings, publisher: MemoryPublisher, device: Registered
    ) -> None:
        small = settings.model_copy(update={"max_body_bytes": 2_048})
        async with serving(small, publisher) as client:
            is_refused(await report(client, device, b" " * 2_049), 413)

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield b" " * 1_000

            headers = {"Authorization": device.access_key}
            is_refused(await client.post(path_of(device), content=pieces(), headers=headers), 413)
        assert publisher.reports == []

    @pytest.mark.parametrize("key", ["", "nobody's", "Bearer x", "ключ".encode().decode("latin-1"), "x" * 5_000])
    async def test_no_key_or_a_bad_one(self, client: httpx.AsyncClient, device: Registered, key: str) -> None:
        headers = {b"Authorization": key.encode("latin-1")} if key else {}
        is_refused(await client.post(path_of(device), json=GOOD, headers=headers), 401)

    async def test_another_devices_key(self, client: httpx.AsyncClient, device: Registered, other: Registered) -> None:
        assert "another device" in is_refused(await report(client, device, key=other.access_key), 403)
        nobody = Registered(str(uuid4()), other.access_key)
        is_refused(await report(client, nobody), 403)
        is_refused(await report(client, Registered("%00", other.access_key)), 403)
        is_refused(await report(client, Registered("no-id", "nobody's")), 401)

    async def test_a_revoked_key(self, client: httpx.AsyncClient, engine: Engine, model: NewModel) -> None:
        device = register(engine, model)
        assert (await report(client, device)).status_code == 200
        Devices(engine).revoke(device.id)
        await asyncio.sleep(1)
        assert "revoked" in is_refused(await report(client, device), 403)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
    async def test_another_method(self, client: httpx.AsyncClient, device: Registered, method: str) -> None:
        for path in (path_of(device), MANY):
            reply = await client.request(method, path)
            is_refused(reply, 405)
            assert reply.headers["allow"] == "POST"


class TestMany:
    async def test_each_has_its_own_answer(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, device: Registered, other: Registered
    ) -> None:
        nobody = str(uuid4())
        reply = await client.post(
            MANY,
            json={
                device.id: {"access_token": device.access_key, **GOOD},
                other.id: {"access_token": other.access_key, "status": "gone"},
                nobody: {"access_token": device.access_key, **GOOD},
                "x": {"access_token": "nobody's", **GOOD},
                "y": GOOD,
                "z": 5,
                "t": {"access_token": 5},
            },
        )
        assert reply.status_code == 200
        answers = reply.json()
        assert answers.pop(device.id)["success"] is True
        assert answers == {
            other.id: {"error": "status must be online, offline or error"},
            nobody: {"error": "The access key is another device's"},
            "x": {"error": "Unknown access key"},
            "y": {"error": "There is no access key in Authorization"},
            "z": {"error": "The entry must be an object"},
            "t": {"error": "There is no access key in Authorization"},
        }
        assert [one.device_id for one in kept(publisher)] == [device.id]

    async def test_who_brings_a_report_does_not_make_it_another(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, device: Registered
    ) -> None:
        await client.post(MANY, json={device.id: {"access_token": device.access_key, **GOOD}})
        await report(client, device)
        gateways, own = kept(publisher)
        assert gateways.digest == own.digest
        assert gateways.values == own.values

    async def test_a_hundred_and_one_more(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, engine: Engine, model: NewModel
    ) -> None:
        fleet = [register(engine, model) for _ in range(100)]
        body = {one.id: {"access_token": one.access_key, **GOOD} for one in fleet}
        reply = await client.post(MANY, json=body)
        assert reply.status_code == 200
        assert all(answer["success"] for answer in reply.json().values())
        assert {one.device_id for one in kept(publisher)} == set(body)
        assert "100" in is_refused(await client.post(MANY, json={**body, "one more": {}}), 422)
        assert len(publisher.reports) == 100

    async def test_none(self, client: httpx.AsyncClient) -> None:
        reply = await client.post(MANY, json={})
        assert (reply.status_code, reply.json()) == (200, {})

    @pytest.mark.parametrize("sent", [b"", b"[]", b"nonsense"])
    async def test_what_is_no_object(self, client: httpx.AsyncClient, sent: bytes) -> None:
        is_refused(await client.post(MANY, content=sent), 422)


class TestAway:
    @pytest.mark.parametrize("fault", [NOT_PUBLISHED, OUTCOME_UNKNOWN])
    async def test_without_kafka(
        self,
        client: httpx.AsyncClient,
        publisher: MemoryPublisher,
        device: Registered,
        other: Registered,
        fault: Exception,
    ) -> None:
        many = {one.id: {"access_token": one.access_key, **GOOD} for one in (device, other)}
        publisher.fault = fault
        is_refused(await report(client, device), 503)
        is_refused(await client.post(MANY, json=many), 503)
        publisher.ready = False
        is_refused(await report(client, device), 503)
        publisher.ready, publisher.fault = True, None
        assert (await report(client, device)).status_code == 200

    async def test_a_record_that_kafka_never_takes(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, device: Registered
    ) -> None:
        publisher.fault = RecordTooLarge("too large")
        is_refused(await report(client, device), 413)

    async def test_without_the_registry_no_device_is_told_that_it_was_removed(
        self, settings: Settings, publisher: MemoryPublisher, device: Registered
    ) -> None:
        away = settings.model_copy(update={"registry": "postgresql+psycopg://nobody@127.0.0.1:1/none"})
        async with serving(away, publisher) as client:
            is_refused(await report(client, device), 503)
            is_refused(await report(client, device, key="nobody's"), 503)
            is_refused(await client.post(MANY, json={device.id: {"access_token": "x", **GOOD}}), 503)
        assert publisher.reports == []

    async def test_overload(self, settings: Settings, publisher: MemoryPublisher, device: Registered) -> None:
        publisher.gate = asyncio.Event()
        async with serving(settings.model_copy(update={"max_in_flight_requests": 2}), publisher) as client:
            asking = [asyncio.create_task(report(client, device)) for _ in range(2)]
            while len(publisher.reports) < 2:  # noqa: ASYNC110  asks another party
                await asyncio.sleep(0.01)
            is_refused(await report(client, device), 503)
            publisher.gate.set()
            assert [reply.status_code for reply in await asyncio.gather(*asking)] == [200, 200]

    async def test_bytes_in_flight_are_bounded_and_given_back(
        self, settings: Settings, publisher: MemoryPublisher, device: Registered
    ) -> None:
        publisher.gate = asyncio.Event()
        big = {"status": "online", "filler": "x" * 700_000}
        async with serving(settings.model_copy(update={"max_in_flight_bytes": 1024 * 1024}), publisher) as client:
            asking = asyncio.create_task(report(client, device, big))
            while not publisher.reports:  # noqa: ASYNC110  asks another party
                await asyncio.sleep(0.01)
            is_refused(await report(client, device, big), 503)
            publisher.gate.set()
            assert (await asking).status_code == 200
            assert (await report(client, device, big)).status_code == 200

    async def test_after_the_end_nothing_is_taken(
        self, settings: Settings, publisher: MemoryPublisher, device: Registered
    ) -> None:
        collector = Collector(settings, publisher)
        await collector.startup()
        await collector.shutdown()
        transport = httpx.ASGITransport(app=collector)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
            is_refused(await report(client, device), 503)


def test_which_paths_are_the_collectors(settings: Settings, publisher: MemoryPublisher) -> None:
    handles = Collector(settings, publisher).handles
    assert all(map(handles, ["/v1/telemetry", MANY, "/v1/devices/x/telemetry"]))
    assert not any(map(handles, ["/v1/devices", "/v1/devices/x", "/v1/devices/x/config", "/v1/devices/a/b/telemetry"]))
