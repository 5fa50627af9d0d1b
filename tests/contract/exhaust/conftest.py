"""Exhaust over HTTP, with a real registry, real builders and the real ClickHouse engine; Kafka is away."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine

from midstream.clickhouse.client import ClickHouse, open_client
from midstream.registry.engine import open_engine
from midstream.registry.exhaust.licences import Licences
from midstream.settings import Settings
from serve.errors import install_error_handlers
from serve.exhaust.download import routes as downloads
from serve.exhaust.requests import routes as requests
from serve.exhaust.requests.calls import utc_now
from serve.exhaust.requests.jobs import PACE, Pace
from serve.exhaust.service import Exhaust, open_exhaust
from serve.request_ids import RequestIds
from tests.contract.engine.conftest import EngineProcess, engine, start_engine
from tests.contract.exhaust.archive import Archive
from tests.support.ports import free_ports

__all__ = ["engine", "start_engine"]

HASH = "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3"
TODAY = datetime.now(UTC).date()


def day_before(days: int) -> date:
    return TODAY - timedelta(days=days)


@dataclass(frozen=True)
class Stored:
    """An event as it is stored."""

    at: datetime
    raw: str
    batch_id: str
    event_index: int

    @property
    def line(self) -> dict[str, Any]:
        """As a line of a download must be."""
        at = self.at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.at.microsecond // 1000:03}Z"
        receipt = {"received_at": at, "batch_id": self.batch_id, "event_index": self.event_index}
        return {**json.loads(self.raw), "receipt": receipt}


class Store:
    """Puts events into ClickHouse."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self.clickhouse = clickhouse

    def put(
        self,
        day: date,
        seconds: float = 0.0,
        *,
        tags: tuple[str, ...] = (HASH,),
        eid: str = "INTERACT",
        channel: str = "channel-1",
        batch_id: str = "",
        event_index: int = 0,
        raw: str | None = None,
        table: str = "learning_events",
    ) -> Stored:
        """Store an event received so many seconds into a day."""
        mid = f"{eid}:{uuid.uuid4()}"
        at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=seconds)
        text = raw or json.dumps({"eid": eid, "mid": mid, "tags": tags, "edata": {"text": 'a "quoted" ñ \\ line'}})
        event = Stored(at, text, batch_id or str(uuid.uuid4()), event_index)
        self.clickhouse.rows(
            f"INSERT INTO {table} (mid, eid, received_at, channel, tags, batch_id, event_index, raw) SELECT "
            "{mid:String}, {eid:String}, fromUnixTimestamp64Milli({at:Int64}), {channel:String}, "
            "{tags:Array(String)}, {batch:String}, {index:UInt32}, {raw:String}",
            {
                "mid": mid,
                "eid": eid,
                "at": round(at.timestamp() * 1000),
                "channel": channel,
                "tags": list(tags),
                "batch": event.batch_id,
                "index": event_index,
                "raw": text,
            },
        )
        return event

    def fill(self, day: date, events: int, *, bytes_each: int = 700) -> None:
        """Store many events, evenly over a day; their texts hardly compress."""
        begin_ms = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
        self.clickhouse.rows(
            "INSERT INTO learning_events (mid, eid, received_at, channel, tags, batch_id, event_index, raw) SELECT "
            "toString(generateUUIDv4()), 'INTERACT', fromUnixTimestamp64Milli({begin:Int64} + "
            "intDiv(number * 86400000, {events:Int64})), 'channel-1', [{tag:String}], toString(intDiv(number, 20)), "
            'number % 20, concat(\'{"eid":"INTERACT","text":"\', hex(randomString({bytes:UInt32})), \'"}\') '
            "FROM numbers({events:Int64})",
            {"begin": begin_ms, "events": events, "tag": HASH, "bytes": bytes_each // 2},
        )

    def close_days(self, until: datetime | None = None) -> None:
        """Have the accounting say that everything received until then is through; by default, until now."""
        until = until or datetime.now(UTC)
        self.clickhouse.rows(
            "INSERT INTO watermark_rows SELECT 'complete', fromUnixTimestamp64Milli({at:Int64})",
            {"at": int(until.timestamp() * 1000)},
        )


@dataclass
class Served:
    """What the routes need of the services."""

    settings: Settings
    exhaust: Exhaust
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


class Api:
    """An api process's routes of exhaust, served by uvicorn in a thread."""

    def __init__(self, settings: Settings, pace: Pace = PACE, now: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.pace = pace
        self.now = now
        self.url = f"http://127.0.0.1:{settings.port}"
        self.served: Served | None = None
        self._ended: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._server: uvicorn.Server
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(20)

    def stop(self) -> None:
        self._server.should_exit = True
        self.call(lambda: self.served.stopping.set() if self.served else None)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def call(self, what: Callable[[], object]) -> None:
        """Call something in the server's loop."""
        self._loop.call_soon_threadsafe(what)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = FastAPI()
        install_error_handlers(app)
        for routes in (downloads, requests):
            app.include_router(routes.router)
        async with open_exhaust(self.settings, pace=self.pace, now=self.now) as exhaust:
            self.served = app.state.services = Served(self.settings, exhaust)
            self._server = uvicorn.Server(uvicorn.Config(RequestIds(app), port=self.settings.port, log_level="warning"))
            serving = asyncio.create_task(self._server.serve())
            while not self._server.started and not serving.done():  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(0.01)
            self._started.set()
            await serving


class Partner:
    """Who downloads with a licence."""

    def __init__(self, api: Api, key: str, dataset: str = "D001", resource: str = HASH) -> None:
        self.api = api
        self.key = key
        self.path = f"/v1/datasets/{dataset}/{resource}"
        self.http = httpx.Client(base_url=api.url, timeout=60)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def body(self, **request: Any) -> dict[str, Any]:
        return {
            "id": "ekstep.data_exhaust_dataset_service",
            "ver": "1.0",
            "ts": "",
            "params": {"requesterId": "", "did": "", "key": "", "msgid": "m-1"},
            "request": request or {"licensekey": self.key},
        }

    def post(self, *days: object, query: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
        path = "/".join([self.path, *(str(day) for day in days)])
        return self.http.post(path + query, json=self.body(), headers=headers)

    def get(self, *days: object, query: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
        path = "/".join([self.path, *(str(day) for day in days)])
        return self.http.get(path + query, headers={**self.bearer, **(headers or {})})

    def archive(self, *days: object, query: str = "") -> Archive:
        reply = self.post(*days, query=query)
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"] == "application/zip"
        return Archive(reply.content)

    def manifest(self, first: date, last: date, query: str = "") -> dict[str, Any]:
        reply = self.get(first, last, "manifest", query=query)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())


@pytest.fixture
def make_settings(
    engine: EngineProcess, database: str, empty_registry: Path, tmp_path: Path
) -> Callable[..., Settings]:
    """Settings of an api process on the home of this test; the database has no events."""
    for table in ("learning_events", "operational_events", "watermark_rows", "progress_rows", "exhaust_downloads"):
        engine.query(f"TRUNCATE TABLE {database}.{table}")
    home = tmp_path / "home"
    shutil.copytree(empty_registry, home)

    def make(**more: Any) -> Settings:
        given = {"home": home, "clickhouse": f"{engine.url}/{database}", "port": free_ports(1)[0]}
        return Settings(**{**given, **more})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def registry(settings: Settings) -> Iterator[Engine]:
    opened = open_engine(settings)
    yield opened
    opened.dispose()


@pytest.fixture
def clickhouse(settings: Settings) -> Iterator[ClickHouse]:
    client = open_client(settings)
    yield client
    client.close()


@pytest.fixture
def store(clickhouse: ClickHouse) -> Store:
    return Store(clickhouse)


@contextmanager
def serving(settings: Settings, pace: Pace = PACE, now: Callable[[], datetime] = utc_now) -> Iterator[Api]:
    api = Api(settings, pace, now)
    api.start()
    try:
        yield api
    finally:
        api.stop()


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    with serving(settings) as opened:
        yield opened


@pytest.fixture
def key(registry: Engine) -> str:
    return Licences(registry).create("partner", [("D001", HASH)])


@pytest.fixture
def partner(api: Api, key: str) -> Partner:
    return Partner(api, key)
