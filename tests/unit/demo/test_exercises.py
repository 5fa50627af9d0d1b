"""What the demo's learners send, and what it finds wrong in the records and the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx
import orjson
import pytest

from deploy.local.demo import exercises
from deploy.local.demo.exercises import EXERCISES, LEARNERS, School, expected_report, run_exercises, where_stuck
from deploy.local.demo.target import DemoError
from midstream.assignments.fields import read_write
from midstream.assignments.indicators import ALGO_VERSION, indicators
from midstream.assignments.record import Version, fold, show
from midstream.assignments.runner import read_telemetry
from midstream.simulate.learner import Learner

SCHOOL = School(1, range(100, 100 + LEARNERS), "a-token")
NOW_MS = 1_769_860_800_000
Handler = Callable[[httpx.Request], httpx.Response]


class Platform:
    """Keeps records in memory as the API says; its report is given."""

    def __init__(self) -> None:
        self.writes: dict[str, list[Version]] = defaultdict(list)
        self.requests: list[httpx.Request] = []
        self.report: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/v1/assignment/academy/report":
            return httpx.Response(200, json={"academy": 1, "assets": self.report})
        writes = self.writes[request.url.path]
        status = 200
        if request.method != "GET":
            status = 200 if writes else 201
            values = read_write(request.content)
            telemetry = values["telemetry"]
            assert isinstance(telemetry, bytes)
            found = indicators(read_telemetry(telemetry))
            computed = {**asdict(found), "metrics": orjson.dumps(found.metrics), "metrics_algo_version": ALGO_VERSION}
            at = datetime.fromtimestamp(len(writes), UTC)
            writes.append(Version(len(writes), at, frozenset(values), frozenset(computed), values | computed))
        *_, slug, _, user, _ = unquote(request.url.path).split("/")
        record = fold(writes)
        assert record.updated_at is not None
        body = show(1, int(user), slug, record.values, writes[0].at, record.updated_at)
        return httpx.Response(status, content=body)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    one = Platform()
    learners = [Learner(1, user, EXERCISES[at % 3], NOW_MS - 7 * 86_400_000) for at, user in enumerate(SCHOOL.users)]
    one.report = expected_report(learners)
    make = exercises._client

    def client(base_url: str, school: School) -> httpx.AsyncClient:
        headers = make(base_url, school).headers
        return httpx.AsyncClient(base_url=base_url, headers=headers, transport=httpx.MockTransport(one))

    monkeypatch.setattr(exercises, "_client", client)
    monkeypatch.setattr(exercises, "_ARRIVAL_LIMIT_S", 0.0)
    return one


async def run() -> dict[str, Any]:
    return await run_exercises("http://test", SCHOOL, 1, NOW_MS)


async def test_what_was_sent_is_what_the_records_and_the_report_say(platform: Platform) -> None:
    outcome = await run()
    assert outcome["problems"] == []
    assert outcome["learners"] == len(platform.writes) == LEARNERS
    writes = [request for request in platform.requests if request.method != "GET"]
    assert outcome["writes"] == len(writes)
    assert all(request.headers["Authorization"] == "Token a-token" for request in platform.requests)
    assert all(request.headers["Academy"] == "1" for request in platform.requests)
    assert {request.url.query for request in writes} == {b"compute=true"}
    assert [request.method for request in writes].count("POST") == LEARNERS


async def test_a_course_author_sees_where_learners_get_stuck(platform: Platform) -> None:
    rows = {row["asset"]: row for row in where_stuck((await run())["report"])}
    assert list(rows) == sorted(exercise.slug for exercise in EXERCISES)
    assert sum(row["learners"] for row in rows.values()) == LEARNERS
    assert rows["loops"]["most get stuck at"] == "02-nested-loops"
    assert rows["hello-python"]["completion %"] > rows["dictionaries"]["completion %"]


def test_of_nobody_nothing_is_said() -> None:
    asset = {"asset_slug": "a", "learners": 0, "completion_rate": 0, "engagement_score": 0, "frustration_score": 0}
    assert where_stuck([{**asset, "steps": []}])[0]["most get stuck at"] == "nothing"
    assert where_stuck([]) == expected_report([]) == []


async def test_a_record_that_says_something_else_is_a_problem(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampered(request: httpx.Request) -> httpx.Response:
        reply = platform(request)
        if request.method == "GET" and "/user/100/" in request.url.path:
            return httpx.Response(200, json=reply.json() | {"engagement_score": 1.23, "telemetry": None})
        return reply

    make = exercises._client
    monkeypatch.setattr(
        exercises,
        "_client",
        lambda base_url, school: httpx.AsyncClient(
            base_url=base_url, headers=make(base_url, school).headers, transport=httpx.MockTransport(tampered)
        ),
    )
    slug = EXERCISES[0].slug
    assert (await run())["problems"] == [
        f"telemetry of user 100 in {slug} is not what was sent",
        f"engagement_score of user 100 in {slug} is not what was sent",
    ]


async def test_a_report_that_says_something_else_is_a_problem(platform: Platform) -> None:
    platform.report[0]["engagement_score"] += 0.5
    platform.report[1]["steps"][0]["stuck"] += 1
    platform.report[1]["frustration_score"] += 0.004  # rounded
    gone = platform.report.pop()["asset_slug"]
    first, second = (asset["asset_slug"] for asset in platform.report)
    said, differ, missing = (await run())["problems"]
    assert said.startswith(f"engagement_score of {first} is ")
    assert differ == f"steps of {second} differ in the report"
    assert missing == f"the report has no asset {gone}"


async def test_a_refused_write_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"detail": "no", "status_code": 403})

    monkeypatch.setattr(
        exercises,
        "_client",
        lambda base_url, _: httpx.AsyncClient(base_url=base_url, transport=httpx.MockTransport(refuse)),
    )
    with pytest.raises(DemoError, match=r"POST /v1/assignment/academy/asset/.* answered 403"):
        await run()
