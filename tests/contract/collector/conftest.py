import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.collector import Collector
from midstream.registry.credentials import Credentials, Issued
from midstream.registry.migrate import migrate
from midstream.settings import Settings

from .doubles import MemoryPublisher

PATH = "/api/data/v1/telemetry"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    migrate(Settings(home=folder, registry=""))
    return folder


@pytest.fixture(scope="session")
def credentials(home: Path) -> Iterator[Credentials]:
    opened = Credentials(Settings(home=home, registry=""))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def app_credential(credentials: Credentials) -> Issued:
    return credentials.create("app")


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Settings:
    return Settings(home=home, registry="", spool=tmp_path / "spool")


@pytest.fixture
def publisher() -> MemoryPublisher:
    return MemoryPublisher()


@asynccontextmanager
async def serving(
    settings: Settings, publisher: MemoryPublisher, token: str | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a collector in process; the client sends ``token`` unless told otherwise."""
    collector = Collector(settings, publisher)
    await collector.startup()
    transport = httpx.ASGITransport(app=collector, raise_app_exceptions=True)  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://collector", headers=headers) as client:
        yield client
    await collector.shutdown()


@pytest.fixture
async def client(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings, publisher, app_credential.token) as opened:
        yield opened


Post = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def post(client: httpx.AsyncClient) -> Post:
    """Post a body (bytes, or what becomes JSON) and check the form that every reply has."""

    async def post_body(body: Any, headers: dict[str, str] | None = None, path: str = PATH) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = await client.post(path, content=content, headers=headers)
        check_form(reply)
        return reply

    return post_body


def check_form(reply: httpx.Response) -> None:
    """Check what clients in the field read off every reply."""
    body = reply.json()
    assert reply.headers["content-type"] == "application/json"
    assert body["id"] == "api.telemetry"
    assert body["ver"] == "1.0"
    assert type(body["ets"]) is int
    assert set(body["params"]) == {"resmsgid", "msgid", "status", "err", "errmsg"}
    assert body["params"]["resmsgid"]
    assert reply.headers.get_list("x-request-id")
    if reply.status_code == 200:
        assert body["params"]["status"] == "successful"
        assert body["params"]["err"] is None
        assert body["params"]["errmsg"] is None
        assert body["responseCode"] == "SUCCESS"
        assert reply.headers["x-batch-id"]
    else:
        assert body["params"]["status"] == "failed"
        assert body["params"]["err"]
        assert body["params"]["errmsg"]
        assert body["responseCode"] in ("CLIENT_ERROR", "SERVER_ERROR")
    if reply.status_code in (429, 503):
        assert int(reply.headers["retry-after"]) >= 1
