import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest

from midstream import envelope
from midstream.settings import Settings
from serve import validations
from serve.services import Services

from .conftest import FakePublisher

PATH = "/v1/validate"

EVENT: dict[str, Any] = {
    "eid": "LOG",
    "ets": 1_700_000_000_000,
    "ver": "3.0",
    "mid": "LOG:1",
    "actor": {"id": "u1", "type": "User"},
    "context": {"channel": "c", "pdata": {"id": "p", "ver": "1", "pid": "x"}, "env": "e", "did": "d"},
    "edata": {"type": "api_call", "level": "INFO", "message": "m"},
}


def batch(*events: bytes | dict[str, Any]) -> bytes:
    texts = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return b'{"id":"api.telemetry","events":[' + b",".join(texts) + b"]}"


async def test_each_event_is_judged_and_nothing_is_stored(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    bad = {**EVENT, "mid": "LOG:2", "context": {"channel": "c"}}
    body = batch(EVENT, bad, b'"text"', b'{"eid":NaN}', {**EVENT, "eid": "NEW", "mid": "x"}, EVENT)
    for sent in (body, gzip.compress(body)):
        reply = await client.post(PATH, content=sent, headers=app_token)
        assert reply.status_code == 200
        report = reply.json()
        assert (report["valid"], report["invalid"]) == (2, 4)
        events = report["events"]
        assert [event["index"] for event in events] == list(range(6))
        assert events[0] == {
            "index": 0,
            "mid": "LOG:1",
            "eid": "LOG",
            "valid": True,
            "code": None,
            "pointer": None,
            "message": None,
            "duplicate_of": None,
        }
        assert [event["code"] for event in events[1:5]] == [
            "SCHEMA_VIOLATION",
            "NOT_AN_OBJECT",
            "INVALID_JSON",
            "UNKNOWN_EID",
        ]
        assert events[1]["pointer"].startswith("/context")
        assert all(event["message"] for event in events[1:5])
        assert events[5]["duplicate_of"] == 0
    assert not publisher.rows


async def test_an_operator_may_too(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    reply = await client.post(PATH, content=batch(), headers=operator)
    assert (reply.status_code, reply.json()) == (200, {"valid": 0, "invalid": 0, "events": []})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "INVALID_BATCH"),
        (b"nonsense", 400, "INVALID_BATCH"),
        (b"[]", 400, "INVALID_BATCH"),
        (b"{}", 400, "INVALID_BATCH"),
        (b'{"events":{}}', 400, "INVALID_BATCH"),
        (gzip.compress(batch(EVENT))[:-1], 400, "INVALID_GZIP"),
        (b" " * 4097, 413, "BODY_TOO_LARGE"),
        (gzip.compress(bytes(8193)), 413, "BODY_TOO_LARGE"),
    ],
)
async def test_a_body_that_is_no_batch_says_why(
    client: httpx.AsyncClient, app_token: dict[str, str], body: bytes, status: int, code: str
) -> None:
    reply = await client.post(PATH, content=body, headers=app_token)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "event",
    [
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b'{"mid":"\\ud800"}',
        b'{"mid":"\xff"}',
        b'{"mid":"a","mid":"b"}',
        b'{"ets":1' + b"0" * 400 + b"}",
        b"1e999",
        b"null",
        b'{"mid":"' + b"x" * 2000 + b'","eid":"\\u0000"}',
    ],
)
async def test_a_hostile_event_costs_only_itself(
    client: httpx.AsyncClient, app_token: dict[str, str], event: bytes
) -> None:
    reply = await client.post(PATH, content=gzip.compress(batch(EVENT, event)), headers=app_token)
    assert reply.status_code == 200
    assert [entry["valid"] for entry in reply.json()["events"]] == [True, False]


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("content-encoding", "br", "UNSUPPORTED_ENCODING"),
        ("content-type", "image/png", "UNSUPPORTED_CONTENT_TYPE"),
    ],
)
async def test_what_cannot_be_read_is_415(
    client: httpx.AsyncClient, app_token: dict[str, str], header: str, value: str, code: str
) -> None:
    reply = await client.post(PATH, content=batch(), headers={**app_token, header: value})
    assert (reply.status_code, reply.json()["code"]) == (415, code)


async def test_more_events_than_are_judged_at_once_is_413(
    client: httpx.AsyncClient, app_token: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validations, "MAX_EVENTS", 3)
    assert (await client.post(PATH, content=batch(*[b"1"] * 3), headers=app_token)).status_code == 200
    reply = await client.post(PATH, content=batch(*[b"1"] * 4), headers=app_token)
    assert (reply.status_code, reply.json()["code"]) == (413, "TOO_MANY_EVENTS")


async def test_very_many_elements_are_413_before_they_are_read(
    client: httpx.AsyncClient, app_token: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "_MAX_COMMAS_UNREAD", 1_000)
    monkeypatch.setattr(validations, "MAX_EVENTS", 1_000)
    monkeypatch.setattr(validations, "read_envelope", None)
    reply = await client.post(PATH, content=batch(*[b"1"] * 1_500), headers=app_token)
    assert (reply.status_code, reply.json()["code"]) == (413, "TOO_MANY_EVENTS")


async def test_an_event_full_of_commas_is_judged(
    client: httpx.AsyncClient, app_token: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "_MAX_COMMAS_UNREAD", 1_000)
    monkeypatch.setattr(validations, "MAX_EVENTS", 1_000)
    reply = await client.post(PATH, content=batch(b'{"a":[' + b"1," * 1_500 + b"1]}"), headers=app_token)
    assert (reply.status_code, len(reply.json()["events"])) == (200, 1)


async def test_too_many_at_once_or_too_long_is_503(
    client: httpx.AsyncClient, app_token: dict[str, str], services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(body: bytes) -> bytes:
        import time

        time.sleep(0.1)
        return b"{}"

    monkeypatch.setattr(services.validations, "_judge_whole", slow)
    monkeypatch.setattr(validations, "_MAX_WAITING", 2)
    replies = await asyncio.gather(*(client.post(PATH, content=batch(), headers=app_token) for _ in range(5)))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 503, 503, 503]
    assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 503)
    monkeypatch.setattr(validations, "_TIMEOUT_S", 0.01)
    reply = await client.post(PATH, content=batch(), headers=app_token)
    assert (reply.status_code, reply.json()["code"]) == (503, "OVERLOADED")


async def test_it_needs_a_token(client: httpx.AsyncClient, settings: Settings, app_token: dict[str, str]) -> None:
    assert (await client.post(PATH, content=batch())).status_code == 401
    (settings.home / "registry.db").write_bytes(b"no database at all" * 100)
    reply = await client.post(PATH, content=batch(), headers=app_token)
    assert (reply.status_code, reply.json()["code"]) == (503, "REGISTRY_UNAVAILABLE")
