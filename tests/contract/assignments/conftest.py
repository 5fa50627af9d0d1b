"""The api with a real registry and the real ClickHouse engine; Kafka is away, which no write waits for."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from midstream.clickhouse.client import ClickHouse, open_client
from midstream.registry.academies.academies import Academies
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.users import Users
from midstream.registry.engine import open_engine
from midstream.settings import Settings
from serve.assignments import records, reports
from serve.assignments.opened import open_assignments
from serve.errors import install_error_handlers
from tests.contract.engine.conftest import EngineProcess, engine
from tests.support.no_kafka import NoKafka

__all__ = ["engine"]

ACADEMY, INACTIVE, DELETED, OTHER = 1, 2, 3, 4
TEACHER, LEARNER, READER = 456, 123, 77
ASSET = "intro-to-python"


@dataclass(frozen=True)
class Platform:
    """A learning platform's academies and users in the registry, and its tokens."""

    academies: Academies
    users: Users
    grants: Grants
    teacher: str
    reader: str
    learner: str


@dataclass(frozen=True)
class OnlyAssignments:
    """What these routes need of the services."""

    settings: Settings
    assignments: Any


@pytest.fixture
def settings(engine: EngineProcess, database: str, empty_registry: Path, tmp_path: Path) -> Settings:
    """A registry of this test's own, and a database without records."""
    engine.query(f"TRUNCATE TABLE {database}.assignment_rows")
    shutil.copytree(empty_registry, tmp_path, dirs_exist_ok=True)
    return Settings(home=tmp_path, clickhouse=f"{engine.url}/{database}")


@pytest.fixture
def clickhouse(settings: Settings) -> Iterator[ClickHouse]:
    client = open_client(settings)
    yield client
    client.close()


@pytest.fixture
def platform(settings: Settings) -> Iterator[Platform]:
    opened = open_engine(settings)
    academies, users, grants = Academies(opened), Users(opened), Grants(opened)
    for number in (ACADEMY, INACTIVE, DELETED, OTHER):
        academies.create(f"Academy {number}", number)
    for user, name in ((TEACHER, "Teacher"), (LEARNER, "Learner"), (READER, "Reader")):
        users.create(name, user)
    for number in (ACADEMY, INACTIVE, DELETED):
        grants.grant(TEACHER, number, "crud_telemetry")
    grants.grant(READER, ACADEMY, "read_telemetry")
    grants.grant(LEARNER, ACADEMY, "own_telemetry")
    academies.set_status(INACTIVE, "inactive")
    academies.set_status(DELETED, "deleted")
    yield Platform(academies, users, grants, *(users.create_token(user) for user in (TEACHER, READER, LEARNER)))
    opened.dispose()


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_error_handlers(app)
    for module in (records, reports):
        app.include_router(module.router)
    async with open_assignments(settings, NoKafka()) as assignments:
        app.state.services = OnlyAssignments(settings, assignments)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as opened:
            yield opened


def path_of(asset: str = ASSET, user: object = LEARNER) -> str:
    return f"/v1/assignment/academy/asset/{quote(asset, safe='')}/user/{user}/telemetry"


def headers_of(token: str, academy: object = ACADEMY) -> dict[str, str]:
    return {"authorization": f"Token {token}", "academy": str(academy)}


@pytest.fixture
def teacher(platform: Platform) -> dict[str, str]:
    """Headers of who may do everything in the academy."""
    return headers_of(platform.teacher)


@dataclass(frozen=True)
class Record:
    """A record, as a teacher writes and reads it."""

    client: httpx.AsyncClient
    headers: dict[str, str]
    path: str

    async def send(
        self, method: str, json: Any = None, *, content: bytes | None = None, **query: str
    ) -> httpx.Response:
        body: dict[str, Any] = {"content": content} if content is not None else {} if json is None else {"json": json}
        return await self.client.request(method, self.path, headers=self.headers, params=query, **body)

    async def post(self, json: Any = None, **query: str) -> dict[str, Any]:
        reply = await self.send("POST", json, **query)
        assert reply.status_code in (200, 201), reply.text
        return dict(reply.json())

    async def put(self, json: Any = None, **query: str) -> dict[str, Any]:
        reply = await self.send("PUT", json, **query)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def get(self) -> dict[str, Any]:
        reply = await self.send("GET")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())


@pytest.fixture
def record(client: httpx.AsyncClient, teacher: dict[str, str]) -> Callable[..., Record]:
    """Name a record; nothing is written."""

    def named(asset: str = ASSET, user: object = LEARNER) -> Record:
        return Record(client, teacher, path_of(asset, user))

    return named
