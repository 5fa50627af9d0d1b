import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from midstream.dimensions import DimensionType
from serve.services import MAX_BULK_LOADS, Services

from .conftest import FakeFinder, FakePublisher

USER = "/v1/dimensions/user"


@pytest.mark.parametrize("type_", [*DimensionType])
async def test_put_publishes_the_row_and_answers_with_its_version(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher, type_: str
) -> None:
    reply = await client.put(f"/v1/dimensions/{type_}/u1", json={"state": "Kerala"}, headers=operator)
    assert reply.status_code == 200
    (row,) = publisher.rows
    assert reply.json() == {"type": type_, "id": "u1", "version": row.version}
    assert (row.type, row.id, row.attributes, row.deleted) == (type_, "u1", '{"state":"Kerala"}', False)


async def test_put_keeps_a_given_version_and_makes_rising_ones(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher
) -> None:
    for _ in range(5):
        assert (await client.put(f"{USER}/u1", json={}, headers=operator)).status_code == 200
    versions = [row.version for row in publisher.rows]
    assert versions == sorted(set(versions))
    reply = await client.put(f"{USER}/u1?version=5", json={}, headers=operator)
    assert reply.json()["version"] == 5 == publisher.rows[-1].version


@pytest.mark.parametrize(
    ("path", "id_"),
    [
        ("a%2Fb", "a/b"),
        ("a/b", "a/b"),
        ("a/", "a/"),
        ("%2Fa", "/a"),
        ("a%252Fb", "a%2Fb"),
        ("a%3Fb%23", "a?b#"),
        ("%C3%A9+x%20y", "é+x y"),
        ("..%2Fa", "../a"),
    ],
)
async def test_an_id_is_decoded_once_and_may_hold_anything(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher, path: str, id_: str
) -> None:
    reply = await client.put(f"{USER}/{path}", json={}, headers=operator)
    assert reply.json().get("id") == id_
    assert publisher.rows[-1].id == id_


@pytest.mark.parametrize("path", ["%FF", "", "%00", "x" * 1025])
async def test_an_id_that_cannot_be_is_400(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher, path: str
) -> None:
    reply = await client.put(f"{USER}/{path}", json={}, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_ID")
    assert not publisher.rows


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "INVALID_JSON"),
        (b"nonsense", 400, "INVALID_JSON"),
        (b"[]", 400, "NOT_AN_OBJECT"),
        (b"null", 400, "NOT_AN_OBJECT"),
        (b'"text"', 400, "NOT_AN_OBJECT"),
        (b'{"a":NaN}', 400, "INVALID_JSON"),
        (b'{"a":1,"a":1}', 400, "INVALID_JSON"),
        (b'{"a":"\xff"}', 400, "INVALID_UTF8"),
        (b'{"a":"\\udfff"}', 400, "INVALID_JSON"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, 400, "TOO_DEEP"),
        (b'{"a":"' + b"x" * 2041 + b'"}', 413, "BODY_TOO_LARGE"),
        (gzip.compress(b'{"a":"' + b"x" * 2041 + b'"}'), 413, "BODY_TOO_LARGE"),
        (gzip.compress(bytes(50_000_000))[:2048], 413, "BODY_TOO_LARGE"),
        (gzip.compress(b"{}")[:-1], 400, "INVALID_GZIP"),
    ],
)
async def test_a_body_that_cannot_be_taken_says_why(
    client: httpx.AsyncClient,
    operator: dict[str, str],
    publisher: FakePublisher,
    body: bytes,
    status: int,
    code: str,
) -> None:
    reply = await client.put(f"{USER}/u1", content=body, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.json()["message"]
    assert not publisher.rows


async def test_a_body_up_to_the_limit_passes_and_gzip_is_known_by_its_first_bytes(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher
) -> None:
    text = b'{"a":"' + b"x" * 2040 + b'"}'
    for body in (text, gzip.compress(text)):
        assert (await client.put(f"{USER}/u1", content=body, headers=operator)).status_code == 200
    reply = await client.put(f"{USER}/u1", content=b"{}", headers={**operator, "content-encoding": "gzip"})
    assert reply.status_code == 200
    assert [len(row.attributes) for row in publisher.rows] == [2048, 2048, 2]


@pytest.mark.parametrize("version", ["-1", "x", "1.5", "9223372036854775808", "1" * 5000])
async def test_a_version_that_cannot_be_is_400(
    client: httpx.AsyncClient, operator: dict[str, str], version: str
) -> None:
    reply = await client.put(f"{USER}/u1?version={version}", json={}, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("method", ["PUT", "POST", "GET"])
async def test_an_unknown_type_is_404(client: httpx.AsyncClient, operator: dict[str, str], method: str) -> None:
    path = "/v1/dimensions/planet" + ("" if method == "POST" else "/mars")
    reply = await client.request(method, path, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (404, "UNKNOWN_TYPE")


@pytest.mark.parametrize(("method", "path"), [("PUT", f"{USER}/u1"), ("POST", USER), ("GET", f"{USER}/u1")])
async def test_only_an_operator_may(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, method: str, path: str
) -> None:
    reply = await client.request(method, path, content=b"{}")
    assert (reply.status_code, reply.json()["message"]) == (401, "Unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"
    reply = await client.request(method, path, content=b"{}", headers=app_token)
    assert (reply.status_code, reply.json()["code"]) == (403, "FORBIDDEN")
    assert not publisher.rows


async def test_kafka_away_is_503_with_retry_after(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher
) -> None:
    publisher.fail_after = 0
    reply = await client.put(f"{USER}/u1", json={}, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (503, "KAFKA_UNAVAILABLE")
    assert int(reply.headers["retry-after"]) > 0


async def test_the_registry_away_is_503(
    client: httpx.AsyncClient, operator: dict[str, str], settings: Any, publisher: FakePublisher
) -> None:
    (settings.home / "registry.db").write_bytes(b"no database at all" * 100)
    reply = await client.put(f"{USER}/u1", json={}, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (503, "REGISTRY_UNAVAILABLE")
    assert "retry-after" in reply.headers
    assert not publisher.rows


async def test_a_body_that_does_not_come_is_408(
    client: httpx.AsyncClient, operator: dict[str, str], services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(services.settings.__dict__, "body_timeout_ms", 50)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    for method, path in (("PUT", f"{USER}/u1"), ("POST", USER)):
        reply = await client.request(method, path, content=slow(), headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (408, "BODY_TIMEOUT")


@pytest.mark.parametrize(("method", "path"), [("PUT", f"{USER}/u1"), ("POST", USER)])
async def test_another_encoding_is_415(
    client: httpx.AsyncClient, operator: dict[str, str], method: str, path: str
) -> None:
    reply = await client.request(method, path, content=b"{}", headers={**operator, "content-encoding": "br"})
    assert (reply.status_code, reply.json()["code"]) == (415, "UNSUPPORTED_ENCODING")


LINES = b"""\
{"id":"u1","attributes":{"state":"Kerala"}}

nonsense\r
{"id":"u2","attributes":{},"version":7}\r
{"id":"","attributes":{}}
{"id":"u3","attributes":[]}
{"id":"u4","attributes":{"a":"%s"}}
{"id":"u5","attributes":{"a":1}}""" % (b"x" * 20_000)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("step", [1, 10, 100_000])
async def test_bulk_takes_what_it_can_and_names_the_rest(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher, packed: bool, step: int
) -> None:
    body = gzip.compress(LINES) if packed else LINES

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    reply = await client.post(USER, content=chunks(), headers=operator)
    assert reply.status_code == 200
    counts = reply.json()
    assert (counts["accepted"], counts["refused"]) == (3, 4)
    assert [(error["line"], error["code"]) for error in counts["errors"]] == [
        (3, "INVALID_JSON"),
        (5, "INVALID_ID"),
        (6, "NOT_AN_OBJECT"),
        (7, "TOO_LARGE"),
    ]
    assert all(error["message"] for error in counts["errors"])
    assert [(row.id, row.attributes) for row in publisher.rows] == [
        ("u1", '{"state":"Kerala"}'),
        ("u2", "{}"),
        ("u5", '{"a":1}'),
    ]
    assert publisher.rows[1].version == 7


async def test_bulk_of_nothing_is_200(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    for body in (b"", b"\n\n", gzip.compress(b"")):
        reply = await client.post(USER, content=body, headers=operator)
        assert (reply.status_code, reply.json()) == (200, {"accepted": 0, "refused": 0, "errors": []})


async def test_bulk_names_no_more_than_a_hundred_errors(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    reply = await client.post(USER, content=b"x\n" * 5000, headers=operator)
    assert reply.json()["refused"] == 5000
    assert len(reply.json()["errors"]) == 100


async def test_bulk_has_no_limit_of_its_whole_length(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher
) -> None:
    line = json.dumps({"id": "u", "attributes": {"a": "x" * 1000}}).encode() + b"\n"

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield line * 20

    reply = await client.post(USER, content=chunks(), headers=operator)
    assert reply.json()["accepted"] == 4000 == len(publisher.rows)


async def test_bulk_cut_short_says_how_much_is_stored(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher
) -> None:
    whole = gzip.compress(b'{"id":"u1","attributes":{}}\n' * 3) + gzip.compress(b"more")
    reply = await client.post(USER, content=whole[:-3], headers=operator)
    assert (reply.status_code, reply.json()["code"], reply.json()["accepted"]) == (400, "INVALID_GZIP", 3)
    assert len(publisher.rows) == 3


async def test_bulk_when_kafka_goes_away_says_how_much_is_stored(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher
) -> None:
    publisher.fail_after = 2
    reply = await client.post(USER, content=b'{"id":"u1","attributes":{}}\n' * 5, headers=operator)
    assert (reply.status_code, reply.json()["code"], reply.json()["accepted"]) == (503, "KAFKA_UNAVAILABLE", 2)
    assert "retry-after" in reply.headers


async def test_no_more_bulk_loads_at_once_than_allowed(
    client: httpx.AsyncClient, operator: dict[str, str], services: Services
) -> None:
    for _ in range(MAX_BULK_LOADS):
        await services.bulk_slots.acquire()
    reply = await client.post(USER, content=b"", headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (503, "BUSY")
    assert "retry-after" in reply.headers
    services.bulk_slots.release()
    assert (await client.post(USER, content=b"", headers=operator)).status_code == 200
    assert (await client.post(USER, content=b"", headers=operator)).status_code == 200


async def test_get_reads_the_row(client: httpx.AsyncClient, operator: dict[str, str], finder: FakeFinder) -> None:
    finder.rows["user", "a/b"] = {
        "type": "user",
        "id": "a/b",
        "attributes": msgspec.Raw(b'{"x":1.0}'),
        "version": 7,
        "updated_at": datetime(2024, 1, 2, tzinfo=UTC).isoformat(),
    }
    reply = await client.get(f"{USER}/a%2Fb", headers=operator)
    assert reply.status_code == 200
    assert reply.json()["attributes"] == {"x": 1.0}
    assert (await client.get(f"{USER}/other", headers=operator)).json()["code"] == "NOT_FOUND"
    finder.away = True
    reply = await client.get(f"{USER}/a%2Fb", headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (503, "CLICKHOUSE_UNAVAILABLE")
    assert "secret-host" not in reply.text
