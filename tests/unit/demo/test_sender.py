"""How the demo's clients send, and what their ledger makes of the replies."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from deploy.local.demo import sender
from deploy.local.demo.day import Day, make_day
from deploy.local.demo.sender import Ledger, push_dimensions, send_day
from deploy.local.demo.target import DemoError, Target, find_target, operator_token
from midstream.registry.credentials import Credentials
from midstream.registry.migrate import migrate
from midstream.settings import Settings

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(scope="module")
def day() -> Day:
    return make_day(1, 1_763_700_000_000, 12)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("http://127.0.0.1:8000", Settings(home=tmp_path), "app-token")


class Collector:
    """Takes every batch, but for what ``answers`` gives first."""

    def __init__(self, *answers: httpx.Response | httpx.TransportError) -> None:
        self.answers: Iterator[httpx.Response | httpx.TransportError] = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self.answers, None)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer or taken(len(self.requests))


def taken(number: int, status: str = "successful") -> httpx.Response:
    return httpx.Response(200, headers={"X-Batch-Id": f"b{number}"}, json={"params": {"status": status}})


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], None]:
    def use(handler: Handler) -> None:
        def client(target: Target, token: str) -> httpx.AsyncClient:
            headers = {"Authorization": f"Bearer {token}"}
            return httpx.AsyncClient(base_url=target.base_url, headers=headers, transport=httpx.MockTransport(handler))

        monkeypatch.setattr(sender, "_client", client)
        monkeypatch.setattr(sender, "_FIRST_DELAY_S", 0.001)

    return use


async def send(target: Target, day: Day, limit_s: float = 20) -> Ledger:
    return await send_day(target, day, limit_s, lambda _events: None)


async def test_every_batch_is_sent_as_it_is_and_again_when_its_reply_got_lost(
    target: Target, day: Day, serve: Callable[[Handler], None]
) -> None:
    collector = Collector()
    serve(collector)
    ledger = await send(target, day)
    bodies = Counter(request.content for request in collector.requests)
    assert bodies == Counter({batch.body: 1 + batch.lost_replies for batch in day.batches})
    assert ledger.requests == len(collector.requests) == len(ledger.accepted)
    assert ledger.lost_replies == sum(batch.lost_replies for batch in day.batches) > 0
    assert ledger.events == sum(len(batch.events) * (1 + batch.lost_replies) for batch in day.batches)
    assert (ledger.refusals, ledger.unknown) == (0, 0)
    for request in collector.requests:
        assert request.url.path == "/api/data/v1/telemetry"
        assert request.headers["Authorization"] == "Bearer app-token"
        assert request.headers["X-Device-Id"]


async def test_the_administrator_is_done_before_the_student_syncs(
    target: Target, day: Day, serve: Callable[[Handler], None]
) -> None:
    collector = Collector()
    serve(collector)
    await send(target, day)
    order = [request.headers["X-Device-Id"] for request in collector.requests]
    student = next(device.id for device in day.fleet.devices if device.story == "shared file")
    assert max(at for at, did in enumerate(order) if did == day.fleet.administrator.id) < order.index(student)


async def test_a_refused_batch_is_sent_again_identical(
    target: Target, day: Day, serve: Callable[[Handler], None]
) -> None:
    full = httpx.Response(503, json={"params": {"status": "failed"}})
    unknown = httpx.Response(503, headers={"X-Batch-Id": "b-lost"}, json={})
    failed = taken(0, status="failed")
    collector = Collector(full, unknown, failed, httpx.ReadTimeout("slow"), httpx.ConnectError("refused"))
    serve(collector)
    ledger = await send(target, day)
    bodies = Counter(request.content for request in collector.requests)
    assert sum(bodies.values()) == len(ledger.accepted) + 5
    assert ledger.refusals == 5
    assert ledger.unknown == 3  # no reply, and two with a batch id that was not said to be successful
    assert {batch.msgid for batch in ledger.accepted.values()} == {batch.msgid for batch in day.batches}


async def test_a_collector_that_stays_away_ends_the_demo_in_time(
    target: Target, day: Day, serve: Callable[[Handler], None]
) -> None:
    def away(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, text="full", headers={"Retry-After": "1"})

    serve(away)
    with pytest.raises(DemoError, match=r"did not take batch demo-.* in time; last: 503 full"):
        await asyncio.wait_for(send(target, day, limit_s=0.3), 5)


async def test_a_refused_token_is_said_at_once(target: Target, day: Day, serve: Callable[[Handler], None]) -> None:
    serve(lambda _request: httpx.Response(401, text="Unauthorized"))
    with pytest.raises(DemoError, match="refuses the token"):
        await send(target, day)


async def test_dimensions_are_pushed_as_lines(target: Target, day: Day, serve: Callable[[Handler], None]) -> None:
    got = {}

    def api(request: httpx.Request) -> httpx.Response:
        lines = [json.loads(line) for line in request.content.splitlines()]
        got[request.url.path] = lines
        return httpx.Response(200, json={"accepted": len(lines), "refused": 0, "errors": []})

    serve(api)
    await push_dimensions(target, "operator", day.dimensions)
    assert got == {f"/v1/dimensions/{type_}": rows for type_, rows in day.dimensions.items()}


async def test_a_refused_dimension_ends_the_demo(target: Target, day: Day, serve: Callable[[Handler], None]) -> None:
    serve(lambda _request: httpx.Response(200, json={"accepted": 0, "refused": 1}))
    with pytest.raises(DemoError, match="POST /v1/dimensions/user answered 200"):
        await push_dimensions(target, "operator", day.dimensions)


def test_no_pipeline_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="Start one with `make run`"):
        find_target(Settings(home=tmp_path))


def test_a_pipeline_that_was_killed_is_told_with_what_to_do(tmp_path: Path, unused_tcp_port: int) -> None:
    (tmp_path / "run").mkdir()
    facts = {"base_url": f"http://127.0.0.1:{unused_tcp_port}", "clickhouse": "http://127.0.0.1:1/midstream"}
    (tmp_path / "run" / "ready.json").write_text(json.dumps(facts))
    with pytest.raises(DemoError, match=f"answers on http://127.0.0.1:{unused_tcp_port}.\nStart one with `make run`"):
        find_target(Settings(home=tmp_path))


@pytest.mark.parametrize(
    ("ours", "used"),
    [
        ("", "http://c:8123/midstream"),
        ("http://me:secret@c:8123/midstream", "http://me:secret@c:8123/midstream"),
        ("http://me:secret@c", "http://me:secret@c"),
        ("http://me:secret@elsewhere:8123/midstream", "http://c:8123/midstream"),
    ],
)
def test_credentials_of_clickhouse_are_taken_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str, used: str
) -> None:
    (tmp_path / "run").mkdir()
    facts = {"base_url": "http://127.0.0.1:1", "clickhouse": "http://c:8123/midstream"}
    (tmp_path / "run" / "ready.json").write_text(json.dumps(facts))
    monkeypatch.setattr("deploy.local.demo.target.httpx.get", lambda *_args, **_kwargs: httpx.Response(200))
    monkeypatch.setattr("deploy.local.demo.target.demo_token", lambda _settings: "token")
    assert find_target(Settings(home=tmp_path, clickhouse=ours)).settings.clickhouse == used


def test_the_operators_token_ends_with_its_use(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    migrate(settings)
    for _ in range(2):
        with operator_token(settings) as token:
            assert token.count(".") == 2
            assert states(settings) == {"demo-operator": ("operator", "active")}
        assert states(settings) == {"demo-operator": ("operator", "revoked")}


def states(settings: Settings) -> dict[str, tuple[str, str]]:
    credentials = Credentials(settings)
    try:
        return {one.key: (one.role, one.state) for one in credentials.list_all()}
    finally:
        credentials.close()
