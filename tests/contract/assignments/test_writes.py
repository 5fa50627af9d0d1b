"""Writes over HTTP: partial, repeated, at the same moment, too large, with errors in every field."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from midstream.clickhouse.client import ClickHouse
from midstream.settings import MIB
from tests.contract.assignments.conftest import ASSET, LEARNER, READER, TEACHER, Record

EMPTY = dict.fromkeys(
    [
        "telemetry",
        "metrics",
        "engagement_score",
        "frustration_score",
        "completion_rate",
        "metrics_algo_version",
        "total_time",
    ]
)
WRONG_TIME = "Duration has wrong format. Use one of these formats instead: [HH:MM:SS, PT...]."


async def test_post_makes_a_record_and_then_updates_it(record: Callable[..., Record]) -> None:
    reply = await record().send("POST", {"engagement_score": "90.5", "total_time": "PT1H", "id": 99, "what": [1]})
    assert reply.status_code == 201
    made = reply.json()
    assert list(made) == ["id", "user", "asset_slug", *EMPTY, "created_at", "updated_at"]
    shown = {name: made[name] for name in EMPTY}
    assert shown == {**EMPTY, "engagement_score": 90.5, "total_time": "01:00:00"}
    assert (made["user"], made["asset_slug"]) == (LEARNER, ASSET)
    assert isinstance(made["id"], int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made["created_at"])
    assert made["created_at"] <= made["updated_at"]

    reply = await record().send("POST", {"completion_rate": 50, "engagement_score": None})
    assert reply.status_code == 200
    later = reply.json()
    assert (later["id"], later["created_at"]) == (made["id"], made["created_at"])
    assert later["updated_at"] > made["updated_at"]
    assert (later["engagement_score"], later["completion_rate"], later["total_time"]) == (None, 50.0, "01:00:00")
    assert await record().get() == later


@pytest.mark.parametrize("body", [b"", b"{}", b" \n"])
async def test_an_empty_body_makes_an_empty_record(record: Callable[..., Record], body: bytes) -> None:
    reply = await record().send("POST", content=body)
    assert reply.status_code == 201
    assert {name: reply.json()[name] for name in EMPTY} == EMPTY


async def test_a_number_is_shown_as_a_float_and_an_object_as_it_was_sent(record: Callable[..., Record]) -> None:
    body = b'{"telemetry": {"n":1.0, "big": 123456789012345678901234567890}, "engagement_score": 90, "metrics": {}}'
    reply = await record().send("POST", content=body)
    assert b'"engagement_score":90.0' in reply.content
    assert b'{"n":1.0, "big": 123456789012345678901234567890}' in reply.content
    assert (await record().send("GET")).content == reply.content


async def test_patch_is_put(record: Callable[..., Record]) -> None:
    await record().post({"engagement_score": 1, "completion_rate": 2})
    reply = await record().send("PATCH", {"engagement_score": 3})
    assert (reply.status_code, reply.json()["engagement_score"], reply.json()["completion_rate"]) == (200, 3.0, 2.0)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("PT1H", "01:00:00"),
        ("90", "00:01:30"),
        (90, "00:01:30"),
        (90.5, "00:01:30.500000"),
        ("25:00:00", "1 01:00:00"),
        ("P1DT2H", "1 02:00:00"),
        ("1 01:00:00", "1 01:00:00"),
        ("3 days 04:05:06", "3 04:05:06"),
    ],
)
async def test_durations(record: Callable[..., Record], sent: Any, shown: str) -> None:
    assert (await record().post({"total_time": sent}))["total_time"] == shown
    assert (await record().get())["total_time"] == shown


NOT_A_NUMBER = ["A valid number is required."]
TOO_HIGH = ["Ensure this value is less than or equal to 100."]
TOO_LOW = ["Ensure this value is greater than or equal to 0."]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_all_fields_errors_at_once_and_nothing_is_written(
    record: Callable[..., Record], clickhouse: ClickHouse, method: str
) -> None:
    before = await record().post({"completion_rate": 10})
    reply = await record().send(
        method,
        {
            "telemetry": [1],
            "metrics": "x",
            "engagement_score": 100.1,
            "frustration_score": -1,
            "completion_rate": "",
            "metrics_algo_version": "one",
            "total_time": "1h",
        },
    )
    assert reply.status_code == 400
    body = reply.json()
    assert body == {
        "telemetry": ['Expected a dictionary of items but got type "list".'],
        "metrics": ['Expected a dictionary of items but got type "str".'],
        "engagement_score": TOO_HIGH,
        "frustration_score": TOO_LOW,
        "completion_rate": NOT_A_NUMBER,
        "metrics_algo_version": NOT_A_NUMBER,
        "total_time": [WRONG_TIME],
    }
    assert await record().get() == before
    assert clickhouse.rows("SELECT count() FROM assignment_rows")[0][0] == 1


@pytest.mark.parametrize(
    "value",
    [
        '""',
        '"NaN"',
        '"nan"',
        '"-inf"',
        '"Infinity"',
        "NaN",
        "-Infinity",
        "1e999",
        "[]",
        "{}",
        "true",
        '"x"',
        "1" + "0" * 400,
    ],
)
async def test_what_is_no_number(record: Callable[..., Record], value: str) -> None:
    for field in ("frustration_score", "metrics_algo_version"):
        reply = await record().send("POST", content=f'{{"{field}": {value}}}'.encode())
        assert (reply.status_code, reply.json()) == (400, {field: NOT_A_NUMBER})


async def test_a_huge_whole_number_is_a_float(record: Callable[..., Record]) -> None:
    reply = await record().send("POST", content=b'{"engagement_score": 1' + b"0" * 30 + b"}")
    assert (reply.status_code, reply.json()) == (400, {"engagement_score": TOO_HIGH})
    reply = await record().send("POST", content=b'{"metrics_algo_version": 1' + b"0" * 30 + b"}")
    assert (reply.status_code, reply.json()["metrics_algo_version"]) == (201, 1e30)


@pytest.mark.parametrize(
    ("body", "kind"),
    [("[]", "list"), ('"x"', "str"), ("1", "int"), ("1.5", "float"), ("true", "bool"), ("null", "NoneType")],
)
async def test_a_body_is_an_object(record: Callable[..., Record], body: str, kind: str) -> None:
    reply = await record().send("POST", content=body.encode())
    message = f"Invalid data. Expected a dictionary, but got {kind}."
    assert (reply.status_code, reply.json()) == (400, {"non_field_errors": [message]})


@pytest.mark.parametrize(
    "body", [b"{", b"{'a': 1}", b'{"telemetry": {"a": NaN}}', b"\xff", b'{"telemetry": {"a": 1e999}}']
)
async def test_a_body_is_json(record: Callable[..., Record], body: bytes) -> None:
    reply = await record().send("POST", content=body)
    assert reply.status_code == 400
    assert reply.json()["status_code"] == 400
    assert reply.json()["detail"].startswith("JSON parse error - ")


async def test_a_telemetry_of_a_megabyte_is_taken_and_more_is_not(record: Callable[..., Record]) -> None:
    telemetry = {"x": "y" * (MIB - 8)}
    assert len(json.dumps(telemetry)) >= MIB
    reply = await record().send("POST", {"telemetry": telemetry})
    assert reply.status_code == 201
    assert (await record().get())["telemetry"] == telemetry
    reply = await record().send("POST", {"telemetry": {"x": "y" * (MIB + 512 * 1024)}})
    assert (reply.status_code, reply.json()["status_code"]) == (413, 413)
    bomb = gzip.compress(json.dumps({"telemetry": {"x": "y" * (2 * MIB)}}).encode())
    reply = await record().send("POST", content=bomb)
    assert reply.status_code == 413


async def test_two_writers_of_other_fields_both_survive(record: Callable[..., Record]) -> None:
    await record().post()
    fields: list[dict[str, float]] = [
        {name: number / 4} for number in range(40) for name in ("engagement_score", "completion_rate")
    ]
    replies = await asyncio.gather(*(record().put(one) for one in fields))
    for sent, reply in zip(fields, replies, strict=True):
        ((name, value),) = sent.items()
        assert reply[name] == value, "whoever writes sees it"
    final = await record().get()
    assert final["engagement_score"] is not None
    assert final["completion_rate"] is not None
    again = await record().put({})
    assert {**again, "updated_at": ""} == {**final, "updated_at": ""}


async def test_two_creates_at_one_moment_make_one_record(record: Callable[..., Record]) -> None:
    replies = await asyncio.gather(*(record().send("POST", {"completion_rate": number}) for number in range(20)))
    assert sorted(reply.status_code for reply in replies) == [200] * 19 + [201]
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len({reply.json()["created_at"] for reply in replies}) == 1


async def test_the_same_request_twice_gives_the_same_record(record: Callable[..., Record]) -> None:
    sent = {"telemetry": {"a": 1}, "completion_rate": 5}
    first, second = await record().post(sent), await record().post(sent)
    assert {**first, "updated_at": ""} == {**second, "updated_at": ""}


async def test_analysts_see_records_and_every_write(record: Callable[..., Record], clickhouse: ClickHouse) -> None:
    made = await record().post({"telemetry": {"a": 1}, "total_time": "25:00:00"})
    await record().put({"total_time": None, "engagement_score": 3})
    (row,) = clickhouse.named_rows("SELECT * FROM assignment_telemetry")
    assert (row["academy_id"], row["user_id"], row["asset_slug"], row["id"]) == (1, LEARNER, ASSET, made["id"])
    assert (json.loads(row["telemetry"]), row["total_time"], row["engagement_score"]) == ({"a": 1}, None, 3.0)
    rows = clickhouse.named_rows("SELECT * FROM assignment_telemetry_history ORDER BY version")
    assert [(one["fields"], one["author"]) for one in rows] == [
        (["telemetry", "total_time"], TEACHER),
        (["engagement_score", "total_time"], TEACHER),
    ]


async def test_other_users_records_are_others(record: Callable[..., Record]) -> None:
    one, other = await record().post({"completion_rate": 1}), await record(user=READER).post({"completion_rate": 2})
    assert one["id"] != other["id"]
    assert (await record().get())["completion_rate"] == 1.0


async def test_a_body_in_gzip(record: Callable[..., Record]) -> None:
    reply = await record().send("POST", content=gzip.compress(b'{"completion_rate": 12}'))
    assert reply.json()["completion_rate"] == 12.0


async def test_the_documented_paths_are_there(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths) == {
        "/v1/assignment/academy/asset/{asset_slug}/user/{user_id}/telemetry",
        "/v1/assignment/academy/asset/{asset_slug}/telemetry",
        "/v1/assignment/academy/report",
        "/v1/assignment/me/telemetry",
    }
