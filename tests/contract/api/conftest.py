"""The api in process, with doubles for Kafka, ClickHouse and the judge; the registry is real."""

import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from midstream.clickhouse.client import ClickHouseError
from midstream.devices.report import read_report
from midstream.dimensions import Dimension, VersionClock
from midstream.events.judge import Judge
from midstream.events.schemas import Schemas, load_schemas
from midstream.ip_location import IpLocations
from midstream.kafka.dimension_publisher import PublishError
from midstream.registry.auth import Authenticator
from midstream.registry.credentials import Credentials
from midstream.registry.fleet.cache import FlagsCache
from midstream.settings import Settings
from midstream.trace.arrivals import BatchFacts, Evidence, Sighting, Stored, Trace, judge
from midstream.trace.tracer import TracerBusyError
from serve.app import create_app
from serve.assignments.opened import open_assignments
from serve.control import Control
from serve.exhaust.service import open_exhaust
from serve.fleet.store import StoreCalls
from serve.fleet.watch import FleetWatch
from serve.readiness import OK, Readiness
from serve.register.attributes import NO_ROW, Row
from serve.register.devices import DeviceRegister
from serve.services import Services
from serve.sync.service import Syncs, open_syncs
from serve.validations import Validations
from tests.support.no_kafka import NoKafka

from .device_store import MemoryStore
from .fleet import Caller, Device, is_good


class FakePublisher:
    """Keeps rows as Kafka would; ``away`` lets it acknowledge no more, from the ``fail_after``-th row on."""

    def __init__(self) -> None:
        self.rows: list[Dimension] = []
        self.fail_after: int | None = None

    async def publish(self, row: Dimension) -> None:
        bulk = self.bulk()
        await bulk.add([row])

    def bulk(self) -> "FakeBulk":
        return FakeBulk(self)


class FakeBulk:
    def __init__(self, publisher: FakePublisher) -> None:
        self._publisher = publisher
        self.acknowledged = 0
        self.sizes: list[int] = []

    async def add(self, rows: Sequence[Dimension]) -> None:
        for row in rows:
            if self._publisher.fail_after is not None and len(self._publisher.rows) >= self._publisher.fail_after:
                raise PublishError("Kafka did not acknowledge in time")
            self._publisher.rows.append(row)
            self.acknowledged += 1

    async def finish(self) -> None:
        await self.add([])


class FakeFinder:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.away = False

    async def find(self, type_: str, id_: str) -> dict[str, Any] | None:
        if self.away:
            raise ClickHouseError("no answer from ClickHouse: secret-host", None)
        return self.rows.get((type_, id_))


class FakeDevices:
    """Devices' rows in ClickHouse, and what is published of them; a test copies the one to the other."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.asked: list[list[str]] = []
        self.away = False

    def find(self, dids: Sequence[str]) -> list[Row]:
        self.asked.append(list(dids))
        if self.away:
            raise ClickHouseError("no answer from ClickHouse: secret-host", None)
        return [self.rows.get(did, NO_ROW) for did in dids]


class FakeAlive:
    """Knows the objects that a test names."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.away = False

    async def alive(self, type_: str, ids: Sequence[str]) -> set[str]:
        if self.away:
            raise ClickHouseError("no answer from ClickHouse: secret-host", None)
        return self.ids & set(ids)


class FakeTracer:
    """Knows what a test tells it."""

    def __init__(self) -> None:
        self.traces: dict[str, Trace] = {}
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.complete = True
        self.away = False
        self.busy = False

    def store(self, mid: str, *credentials: str, event: str = '{"mid": "x"}') -> None:
        """Know an event that arrived by these credentials, the first of which stored it."""
        sightings = [
            Sighting(
                Evidence.DUPLICATE if number else Evidence.EVENT,
                f"b{number}",
                0,
                1_700_000_000_000 + number,
                facts=BatchFacts("http", "msg", "d", credential, "telemetry.raw", 1, number),
            )
            for number, credential in enumerate(credentials)
        ]
        self.traces[mid] = judge(mid, sightings, stored=Stored("learning_events", 1_700_000_000_500), event=event)

    async def trace(
        self, mids: Sequence[str], *, with_event: bool = False, credential: str | None = None
    ) -> list[Trace]:
        if self.busy:
            raise TracerBusyError
        if self.away:
            raise ClickHouseError("no answer from ClickHouse: secret-host", None)
        self.asked += mids
        self.credentials.append(credential)
        found = [self.traces.get(mid) or judge(mid, [], complete=self.complete) for mid in mids]
        return [one if with_event else replace(one, event=None) for one in found]


class Parts:
    """What the checks of /ready find; a test changes it."""

    def __init__(self) -> None:
        self.states = {"kafka": OK, "clickhouse": OK, "validate": OK, "store": OK, "devices": OK}
        self.accepting = True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, max_dimension_bytes=2048, max_body_bytes=4096, max_inflated_bytes=8192)


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    return load_schemas()


@pytest.fixture
def credentials(settings: Settings, empty_registry: Path) -> Iterator[Credentials]:
    shutil.copytree(empty_registry, settings.home, dirs_exist_ok=True)
    opened = Credentials(settings)
    yield opened
    opened.close()


@pytest.fixture
def operator(credentials: Credentials) -> dict[str, str]:
    return {"authorization": f"Bearer {credentials.create('op', role='operator').token}"}


@pytest.fixture
def app_token(credentials: Credentials) -> dict[str, str]:
    return {"authorization": f"bearer {credentials.create('app').token}"}


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def finder() -> FakeFinder:
    return FakeFinder()


@pytest.fixture
def stored_devices() -> FakeDevices:
    return FakeDevices()


@pytest.fixture
def ip_locations() -> IpLocations:
    return IpLocations(None)


@pytest.fixture
def alive_objects() -> FakeAlive:
    return FakeAlive()


@pytest.fixture
def tracer() -> FakeTracer:
    return FakeTracer()


@pytest.fixture
def device_store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def services(
    settings: Settings,
    schemas: Schemas,
    credentials: Credentials,
    publisher: FakePublisher,
    finder: FakeFinder,
    stored_devices: FakeDevices,
    ip_locations: IpLocations,
    alive_objects: FakeAlive,
    tracer: FakeTracer,
    device_store: MemoryStore,
    parts: Parts,
) -> AsyncIterator[Services]:
    async def check() -> dict[str, str]:
        return parts.states

    stack = AsyncExitStack()
    authenticator = Authenticator(settings)
    control = Control(settings)
    device_cache = FlagsCache(settings)
    await device_cache.start()
    stored = StoreCalls(settings, device_store)
    watch = FleetWatch(stored)
    validations = Validations(settings, Judge(schemas, settings.max_event_bytes, settings.max_event_depth))
    assignments = await stack.enter_async_context(open_assignments(settings, NoKafka()))
    exhaust = await stack.enter_async_context(open_exhaust(settings))
    clock = VersionClock()
    device_register = DeviceRegister(settings, stored_devices.find, publisher, clock)
    syncs = stack.enter_context(open_syncs(settings))
    yield Services(
        settings=settings,
        authenticator=authenticator,
        register=credentials.register,
        publisher=publisher,
        finder=finder,
        tracer=tracer,
        validations=validations,
        accepting=lambda: parts.accepting,
        readiness=Readiness({"parts": check}, remember_s=0),
        control=control,
        device_cache=device_cache,
        device_store=stored,
        fleet_watch=watch,
        assignments=assignments,
        exhaust=exhaust,
        device_register=device_register,
        ip_locations=ip_locations,
        clock=clock,
        syncs=Syncs(syncs.calls, syncs.erased, alive_objects, wait_s=0.5),
    )
    await device_register.close()
    await stack.aclose()
    await watch.close()
    stored.close()
    await device_cache.close()
    control.close()
    authenticator.close()
    validations.close()


@pytest.fixture
def hardware_key(services: Services) -> str:
    """Of the model hub-100, whose devices report every 10 s."""
    return services.control.models.create("hub-100", 10).hardware_key


@pytest.fixture
def register(client: httpx.AsyncClient, hardware_key: str) -> Callable[..., Awaitable[Device]]:
    """Register a device of hub-100."""

    async def register_device(sn: str, **more: str) -> Device:
        sent = {"sn": sn, "firmware_version": "1.0.0", "hardware_key": hardware_key, "mac": "m", **more}
        reply = is_good(await client.post("/v1/devices", json=sent), 201)
        key = reply["access_key"]
        return Device(reply["id"], key, Caller(client, key, f"/v1/devices/{reply['id']}"))

    return register_device


@pytest.fixture
async def device(register: Callable[..., Awaitable[Device]]) -> Device:
    return await register("SN-1", name="Hall")


@pytest.fixture
async def other(register: Callable[..., Awaitable[Device]]) -> Device:
    return await register("SN-2")


@pytest.fixture
def fleet(client: httpx.AsyncClient, operator: dict[str, str]) -> Caller:
    """An operator who calls."""
    return Caller(client, operator["authorization"], "/v1/fleet")


@pytest.fixture
async def client(settings: Settings, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(settings, services=services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as opened:
        yield opened


@pytest.fixture
def say(device_store: MemoryStore) -> Callable[..., None]:
    """Store a report of a device, received so long ago."""

    def store(device: Device, status: str = "online", *, ago_us: int = 0, **sent: Any) -> None:
        received_us = time.time_ns() // 1_000 - ago_us
        device_store.reports.append(read_report(device.id, {"status": status, **sent}, received_us, str(uuid4())))

    return store
