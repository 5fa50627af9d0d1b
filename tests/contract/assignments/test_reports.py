"""What a course author reads: pages, tables and reports of an academy."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import pytest

from tests.contract.assignments.conftest import ACADEMY, LEARNER, OTHER, Platform, headers_of, path_of
from tests.contract.assignments.test_own_and_computed import telemetry

REPORT = "/v1/assignment/academy/report"


def list_of(asset: str = "intro") -> str:
    return f"/v1/assignment/academy/asset/{asset}/telemetry"


@pytest.fixture
async def class_of_five(client: httpx.AsyncClient, platform: Platform, teacher: dict[str, str]) -> list[int]:
    """Records of users 201 to 205, whose engagement falls; the last has none."""
    users = list(range(201, 206))
    for number, user in enumerate(users):
        platform.users.create(f"Learner {user}", user)
        sent: dict[str, Any] = {"telemetry": telemetry(), "total_time": 3600 * (number + 1)}
        if user != users[-1]:
            sent["engagement_score"] = 90 - number
        reply = await client.post(path_of("intro", user), headers=teacher, json=sent)
        assert reply.status_code == 201
    return users


@pytest.fixture
def reader(platform: Platform) -> dict[str, str]:
    return headers_of(platform.reader)


async def test_pages(client: httpx.AsyncClient, reader: dict[str, str], class_of_five: list[int]) -> None:
    seen: list[int] = []
    path: str | None = list_of() + "?limit=2"
    previous = None
    while path is not None:
        page = (await client.get(path, headers=reader)).json()
        assert page["count"] == 5
        if previous is not None:
            back = (await client.get(page["previous"], headers=reader)).json()
            assert [one["user"] for one in back["results"]] == previous
        previous = [one["user"] for one in page["results"]]
        seen += previous
        path = page["next"]
    assert seen == class_of_five
    assert "telemetry" not in page["results"][0]


async def test_sorted(client: httpx.AsyncClient, reader: dict[str, str], class_of_five: list[int]) -> None:
    async def users(sort: str) -> list[int]:
        reply = await client.get(list_of(), params={"sort": sort}, headers=reader)
        return [one["user"] for one in reply.json()["results"]]

    assert await users("engagement_score") == [204, 203, 202, 201, 205]
    assert await users("-engagement_score") == [201, 202, 203, 204, 205]
    assert await users("-total_time") == [205, 204, 203, 202, 201]
    assert await users("-created_at") == [205, 204, 203, 202, 201]


async def test_a_page_shows_what_the_record_is(
    client: httpx.AsyncClient, teacher: dict[str, str], class_of_five: list[int]
) -> None:
    (first, *_) = (await client.get(list_of(), headers=teacher)).json()["results"]
    record = (await client.get(path_of("intro", 201), headers=teacher)).json()
    assert first == {name: record[name] for name in first}


async def test_as_csv(client: httpx.AsyncClient, reader: dict[str, str], class_of_five: list[int]) -> None:
    reply = await client.get(list_of(), params={"format": "csv", "sort": "-user"}, headers=reader)
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [row["user"] for row in rows] == ["205", "204", "203", "202", "201"]
    assert (rows[0]["engagement_score"], rows[-1]["engagement_score"], rows[0]["total_time"]) == (
        "",
        "90.0",
        "05:00:00",
    )
    accepted = await client.get(list_of(), params={"sort": "-user"}, headers={**reader, "accept": "text/csv"})
    assert accepted.text == reply.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "1001"), ("limit", "x"), ("offset", "-1"), ("offset", "9" * 30), ("sort", "telemetry"),
     ("sort", "--user"), ("sort", ""), ("format", "xml")],
)  # fmt: skip
async def test_parameters_that_cannot_be(
    client: httpx.AsyncClient, reader: dict[str, str], name: str, value: str
) -> None:
    reply = await client.get(list_of(), params={name: value}, headers=reader)
    assert (reply.status_code, list(reply.json())) == (400, [name])


async def test_a_report(
    client: httpx.AsyncClient, reader: dict[str, str], teacher: dict[str, str], class_of_five: list[int]
) -> None:
    await client.post(path_of("zeta", LEARNER), headers=teacher, json={})
    report = (await client.get(REPORT, headers=reader)).json()
    assert (report["academy"], report["next"]) == (ACADEMY, None)
    intro, zeta = report["assets"]
    assert (intro["asset_slug"], intro["learners"], intro["engagement_score"]) == ("intro", 5, 88.5)
    assert [(one["slug"], one["opened"], one["completed"], one["stuck"], one["skipped"]) for one in intro["steps"]] == [
        ("s0", 5, 5, 0, 0),
        ("s1", 5, 5, 0, 0),
        ("s2", 0, 0, 0, 5),
        ("s3", 5, 0, 5, 0),
    ]
    assert (intro["steps"][3]["test_struggles"], intro["steps"][2]["test_struggles"]) == (2.0, None)
    assert zeta == {
        "asset_slug": "zeta", "learners": 1, "completed": 0, "completion_rate": None, "engagement_score": None,
        "frustration_score": None, "steps": [],
    }  # fmt: skip
    one = (await client.get(REPORT, params={"limit": "1"}, headers=reader)).json()
    assert ([asset["asset_slug"] for asset in one["assets"]], one["next"]) == (["intro"], "intro")
    rest = (await client.get(REPORT, params={"after": one["next"]}, headers=reader)).json()
    assert rest["assets"] == [zeta]
    only = (await client.get(REPORT, params={"asset": "zeta"}, headers=reader)).json()
    assert only["assets"] == [zeta]


async def test_an_academy_sees_its_own(client: httpx.AsyncClient, platform: Platform, class_of_five: list[int]) -> None:
    platform.grants.grant(LEARNER, OTHER, "read_telemetry")
    headers = headers_of(platform.learner, OTHER)
    assert (await client.get(list_of(), headers=headers)).json()["results"] == []
    assert (await client.get(REPORT, headers=headers)).json()["assets"] == []


@pytest.mark.parametrize("path", [REPORT, list_of()])
async def test_only_readers_read(client: httpx.AsyncClient, platform: Platform, path: str) -> None:
    assert (await client.get(path)).status_code == 401
    reply = await client.get(path, headers=headers_of(platform.learner))
    assert (reply.status_code, reply.json()["detail"]) == (
        403,
        f"You (user: {LEARNER}) don't have this capability: read_telemetry for academy 1",
    )
