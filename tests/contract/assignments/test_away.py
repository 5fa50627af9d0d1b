"""What writers are told while ClickHouse or the registry is away, and what is there afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import FastAPI

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.registry.academies.records import Records
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryUnavailable
from midstream.settings import Settings
from serve.assignments import records
from serve.assignments.opened import open_assignments
from serve.errors import install_error_handlers
from serve.finder import LazyClient
from tests.contract.assignments.conftest import LEARNER, OnlyAssignments, Record, headers_of, path_of
from tests.support.no_kafka import NoKafka


@pytest.fixture
async def without_clickhouse(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Another process of the api, whose ClickHouse does not answer."""
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(records.router)
    away = settings.model_copy(update={"clickhouse": "http://127.0.0.1:1/nothing"})
    async with open_assignments(away, NoKafka()) as assignments:
        app.state.services = OnlyAssignments(away, assignments)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as opened:
            yield opened


AWAY = {"detail": "ClickHouse does not answer now; try again", "status_code": 503}


async def test_a_create_while_clickhouse_is_away_makes_no_record(
    without_clickhouse: httpx.AsyncClient, teacher: dict[str, str], record: Callable[..., Record], settings: Settings
) -> None:
    reply = await without_clickhouse.post(path_of(), headers=teacher, json={"completion_rate": 5})
    assert (reply.status_code, reply.json()) == (503, AWAY)
    assert int(reply.headers["retry-after"]) > 0
    for method in ("PUT", "GET"):
        assert (await record().send(method, {} if method == "PUT" else None)).status_code == 404
    opened = open_engine(settings)
    reserved = Records(opened).find(1, "intro-to-python", LEARNER)
    opened.dispose()
    assert reserved is not None
    assert not reserved.confirmed
    reply = await record().send("POST", {"completion_rate": 6})
    assert (reply.status_code, reply.json()["id"]) == (201, reserved.id)


async def test_an_update_while_clickhouse_is_away_changes_nothing(
    without_clickhouse: httpx.AsyncClient, teacher: dict[str, str], record: Callable[..., Record]
) -> None:
    made = await record().post({"completion_rate": 5})
    for method in ("PUT", "PATCH", "POST"):
        reply = await without_clickhouse.request(method, path_of(), headers=teacher, json={"completion_rate": 6})
        assert (reply.status_code, reply.json()) == (503, AWAY)
    assert (await without_clickhouse.get(path_of(), headers=teacher)).status_code == 503
    assert await record().get() == made


async def test_an_insert_without_an_answer_is_a_503_and_the_retry_gives_one_record(
    record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch, clickhouse: ClickHouse
) -> None:
    """ClickHouse stored the row, but the answer was lost."""
    real = LazyClient.connected

    class Deaf:
        def __init__(self, client: ClickHouse) -> None:
            self._client = client

        def insert_stream(self, *args: object, **kwargs: object) -> None:
            self._client.insert_stream(*args, **kwargs)  # type: ignore[arg-type]
            raise ClickHouseError("no answer from ClickHouse: reset", None)

    with monkeypatch.context() as patch:
        patch.setattr(LazyClient, "connected", lambda self: Deaf(real(self)))
        assert (await record().send("POST", {"completion_rate": 5})).status_code == 503
    assert clickhouse.rows("SELECT count() FROM assignment_rows")[0][0] == 1
    assert (await record().send("GET")).status_code == 404, "nobody was told of a record"
    reply = await record().send("POST", {"completion_rate": 5})
    assert (reply.status_code, reply.json()["completion_rate"]) == (201, 5.0)
    assert len(clickhouse.rows("SELECT * FROM assignment_telemetry")) == 1


@pytest.mark.parametrize("step", ["reserve", "confirm"])
async def test_a_registry_that_goes_away_is_a_503_and_the_retry_succeeds(
    record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def away(*_: object) -> None:
        raise RegistryUnavailable("the registry cannot be used: gone")

    with monkeypatch.context() as patch:
        patch.setattr(Records, step, away)
        reply = await record().send("POST", {"completion_rate": 5})
        assert (reply.status_code, reply.json()["status_code"]) == (503, 503)
        assert "gone" not in reply.text
    assert (await record().send("GET")).status_code == 404
    assert (await record().send("POST", {"completion_rate": 5})).status_code == 201


async def test_without_a_registry_nobody_is_refused(settings: Settings, client: httpx.AsyncClient) -> None:
    (settings.home / "registry.db").rename(settings.home / "elsewhere.db")
    (settings.home / "registry.db").mkdir()
    reply = await client.post(path_of(), headers=headers_of("some-token"), json={})
    assert (reply.status_code, reply.json()["status_code"]) == (503, 503)
    assert int(reply.headers["retry-after"]) > 0
