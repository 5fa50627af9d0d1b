"""Telemetry as the runner of an exercise sends it, and what is derived from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from midstream.clickhouse.client import ClickHouse
from tests.contract.assignments.conftest import (
    ACADEMY,
    LEARNER,
    OTHER,
    READER,
    Platform,
    Record,
    headers_of,
    path_of,
)

OWN = "/v1/assignment/me/telemetry"
MINUTE_MS = 60_000


def run(exit_code: int) -> dict[str, Any]:
    return {"source_code": "x", "stdout": "", "exit_code": exit_code, "starting_at": 1, "ending_at": 2}


def step(slug: str, position: int, **more: Any) -> dict[str, Any]:
    return {
        "slug": slug,
        "position": position,
        "files": [],
        "is_testeable": True,
        "compilations": [],
        "tests": [],
        "ai_interactions": [],
        "quiz_submissions": [],
        **more,
    }


def telemetry(slug: str = "intro") -> dict[str, Any]:
    """Half an hour: of four steps two completed, one given up after ten minutes, one skipped."""
    return {
        "telemetry_id": "t-1",
        "user_id": 1,
        "slug": slug,
        "agent": "vscode",
        "tutorial_started_at": 0,
        "last_interaction_at": 30 * MINUTE_MS,
        "workout_session": [{"started_at": 0, "ended_at": 20 * MINUTE_MS}, {"started_at": 20 * MINUTE_MS}],
        "steps": [
            step("s0", 0, opened_at=0, completed_at=MINUTE_MS, is_completed=True, compilations=[run(1), run(0)]),
            step("s1", 1, opened_at=MINUTE_MS, completed_at=2 * MINUTE_MS, is_completed=True, tests=[run(0)]),
            step("s2", 2),
            step("s3", 3, opened_at=20 * MINUTE_MS, tests=[run(1), run(2)], ai_interactions=[{}]),
        ],
    }


# t = 1800 s, 2 sessions, 2 of 4 completed, 6 interactions:
# 100 x (0.3 x 1800/36000 + 0.2 x 2/5 + 0.3 x 0.5 + 0.2 x 6/100) = 1.5 + 8 + 15 + 1.2
ENGAGEMENT = 25.7
# 1 of 3 opened not completed; 600 s in it; 1 failed compilation and 2 failed tests of 3 opened steps; 1 of 4 skipped:
# 100 x (0.3/3 + 0.2 x 600/18000 + 0.2 x (1/3)/10 + 0.2 x (2/3)/10 + 0.1/4) = 10 + 0.6667 + 0.6667 + 1.3333 + 2.5
FRUSTRATION = 15.17


@pytest.fixture
def learner(platform: Platform) -> dict[str, str]:
    """Headers of a learner, who need not name the academy."""
    return {"authorization": f"Token {platform.learner}"}


async def test_a_runner_sends_its_users_own_telemetry(
    client: httpx.AsyncClient, learner: dict[str, str], record: Callable[..., Record], clickhouse: ClickHouse
) -> None:
    reply = await client.post(OWN, headers=learner, json=telemetry(), params={"compute": "true"})
    assert reply.status_code == 201, reply.text
    made = reply.json()
    assert (made["user"], made["asset_slug"], made["telemetry"]) == (LEARNER, "intro", telemetry())
    assert (made["engagement_score"], made["frustration_score"]) == (ENGAGEMENT, FRUSTRATION)
    assert (made["completion_rate"], made["metrics_algo_version"], made["total_time"]) == (50.0, 1.0, None)
    assert made["metrics"]["interactions"] == 6
    assert await record("intro").get() == made
    reply = await client.post(OWN, headers=learner, json=telemetry())
    assert (reply.status_code, reply.json()["id"]) == (200, made["id"])
    steps = clickhouse.named_rows("SELECT * FROM assignment_steps ORDER BY position")
    assert [(one["step_slug"], one["opened"], one["completed"], one["skipped"]) for one in steps] == [
        ("s0", True, True, False),
        ("s1", True, True, False),
        ("s2", False, False, True),
        ("s3", True, False, False),
    ]


@pytest.mark.parametrize("body", [{}, {"slug": None}, {"slug": ""}, {"slug": 5}, {"slug": ["a"]}])
async def test_a_runners_telemetry_names_its_asset(
    client: httpx.AsyncClient, learner: dict[str, str], body: dict[str, Any]
) -> None:
    reply = await client.post(OWN, headers=learner, json=body)
    assert reply.status_code == 400
    assert list(reply.json()) == ["slug"]


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b'"x"', b"{", b'{"slug": "a"}, "total_time": {}', b'{"slug":"a","x":NaN}']
)
async def test_a_runners_telemetry_is_an_object(
    client: httpx.AsyncClient, learner: dict[str, str], body: bytes, clickhouse: ClickHouse
) -> None:
    reply = await client.post(OWN, headers=learner, content=body)
    assert reply.status_code == 400, reply.text
    assert clickhouse.rows("SELECT count() FROM assignment_rows")[0][0] == 0


async def test_a_learner_of_several_academies_names_one(
    client: httpx.AsyncClient, platform: Platform, learner: dict[str, str]
) -> None:
    platform.grants.grant(LEARNER, OTHER, "own_telemetry")
    reply = await client.post(OWN, headers=learner, json=telemetry())
    assert reply.status_code == 403
    assert reply.json()["detail"].startswith("Missing academy_id")
    for academy in (ACADEMY, OTHER):
        reply = await client.post(OWN, headers={**learner, "academy": str(academy)}, json=telemetry())
        assert reply.status_code == 201
    reply = await client.post(OWN, headers={**learner, "academy": "2"}, json=telemetry())
    assert (reply.status_code, reply.json()["detail"]) == (
        403,
        f"You (user: {LEARNER}) don't have this capability: own_telemetry for academy 2",
    )


async def test_whoever_is_in_no_academy_sends_nothing(client: httpx.AsyncClient, platform: Platform) -> None:
    platform.users.create("Nobody", 5)
    reply = await client.post(
        OWN, headers={"authorization": f"Token {platform.users.create_token(5)}"}, json=telemetry()
    )
    assert reply.status_code == 403
    assert (await client.post(OWN, json=telemetry())).status_code == 401


async def test_a_learner_writes_no_others_record(client: httpx.AsyncClient, platform: Platform) -> None:
    reply = await client.post(path_of(), headers=headers_of(platform.learner), json={"completion_rate": 100})
    assert reply.status_code == 403
    # The telemetry's own user_id is what the runner believes; the token says whose it is.
    reply = await client.post(OWN, headers=headers_of(platform.learner), json={**telemetry(), "user_id": READER})
    assert reply.json()["user"] == LEARNER


async def test_a_given_value_is_never_computed_over(record: Callable[..., Record]) -> None:
    made = await record().post(
        {"telemetry": telemetry(), "engagement_score": 99, "metrics": {"own": 1}}, compute="true"
    )
    assert (made["engagement_score"], made["metrics"]) == (99.0, {"own": 1})
    assert (made["frustration_score"], made["completion_rate"]) == (FRUSTRATION, 50.0)
    again = await record().put({"telemetry": telemetry()}, compute="true")
    assert (again["engagement_score"], again["metrics"]) == (99.0, {"own": 1})
    cleared = await record().put({"engagement_score": None})
    assert cleared["engagement_score"] is None
    filled = await record().put({"frustration_score": None}, compute="true")
    assert (filled["engagement_score"], filled["frustration_score"]) == (ENGAGEMENT, None)
    assert await record().get() == filled


async def test_a_value_given_while_another_is_computed_stays(record: Callable[..., Record]) -> None:
    await record().post()
    await asyncio.gather(
        *(record().put({"telemetry": telemetry()}, compute="true") for _ in range(10)),
        record().put({"engagement_score": 77}),
        *(record().put({"telemetry": telemetry()}, compute="true") for _ in range(10)),
    )
    assert (await record().get())["engagement_score"] == 77.0


async def test_without_being_asked_nothing_is_computed(record: Callable[..., Record]) -> None:
    made = await record().post({"telemetry": telemetry()})
    assert (made["engagement_score"], made["metrics"]) == (None, None)
    made = await record().put({}, compute="true")
    assert made["engagement_score"] == ENGAGEMENT, "from the telemetry that is stored"
    later = await record().put({"telemetry": None}, compute="true")
    assert (later["telemetry"], later["engagement_score"]) == (None, ENGAGEMENT)


async def test_a_record_without_telemetry_computes_nothing(record: Callable[..., Record]) -> None:
    made = await record().post({}, compute="true")
    assert (made["engagement_score"], made["metrics_algo_version"]) == (None, None)


async def test_what_cannot_be_computed_is_named_and_nothing_is_written(record: Callable[..., Record]) -> None:
    await record().post({"telemetry": {"steps": "many"}})
    for body in ({"telemetry": {"steps": [{"slug": "a", "opened_at": "now"}]}}, {}):
        reply = await record().send("PUT", body, compute="true")
        assert reply.status_code == 400
        (message,) = reply.json()["telemetry"]
        assert "$.steps" in message
    assert (await record().get())["telemetry"] == {"steps": "many"}


async def test_compute_is_true_or_false(client: httpx.AsyncClient, record: Callable[..., Record]) -> None:
    reply = await record().send("POST", {}, compute="perhaps")
    assert (reply.status_code, reply.json()) == (400, {"compute": ["Must be true or false."]})
    assert (await client.post(path_of(), params={"compute": "perhaps"})).status_code == 401, "the token comes first"
    assert (await record().post({"telemetry": telemetry()}, compute="False"))["engagement_score"] is None
