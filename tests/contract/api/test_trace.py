"""``GET /v1/trace/{mid}`` and ``POST /v1/trace``: fields, views and refusals."""

from __future__ import annotations

import gzip
import json
from urllib.parse import quote

import httpx
import jsonschema
import pytest

from midstream.trace.arrivals import Evidence, Reject, Sighting, judge

from .conftest import FakeTracer

MIDS = ["INTERACT:1", "a/b//c", "a%2Fb", "q?x=1#y", 'quo"te\\', "ünï😀", "x\n\r\t\x00y", "m" * 10_000, " ", "é+ "]


@pytest.mark.parametrize("mid", MIDS)
async def test_any_mid_is_asked_for_by_its_url(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer, mid: str
) -> None:
    tracer.store(mid, "app")
    reply = await client.get(f"/v1/trace/{quote(mid, safe='')}", headers=operator)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["mid"], tracer.asked) == (mid, [mid])


async def test_slashes_may_be_raw_or_encoded(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer
) -> None:
    for path in ("a/b/c", "a%2Fb%2fc", "a%2Fb/c"):
        assert (await client.get(f"/v1/trace/{path}", headers=operator)).json()["mid"] == "a/b/c"
    assert (await client.get("/v1/trace/a%252Fb", headers=operator)).json()["mid"] == "a%2Fb"
    assert tracer.asked == ["a/b/c"] * 3 + ["a%2Fb"]


async def test_an_operator_sees_all_arrivals_and_the_event(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer
) -> None:
    tracer.store("M", "app", "other", event='{"mid":"M","big":1e400}')
    reply = await client.get("/v1/trace/M", headers=operator)
    assert reply.headers["content-type"] == "application/json"
    assert '"event":{"mid":"M","big":1e400}' in reply.text
    trace = reply.json()
    assert (trace["verdict"], trace["complete"], trace["reject"]) == ("stored", True, None)
    assert trace["stored"] == {"table": "learning_events", "stored_at": "2023-11-14T22:13:20.500Z"}
    assert [(one["credential"], one["outcome"], one["offset"]) for one in trace["arrivals"]] == [
        ("app", "stored", 0),
        ("other", "duplicate", 1),
    ]


async def test_an_app_sees_its_own_arrivals_and_never_the_event(
    client: httpx.AsyncClient, app_token: dict[str, str], tracer: FakeTracer
) -> None:
    tracer.store("M", "other", "app")
    trace = (await client.get("/v1/trace/M", headers=app_token)).json()
    assert "event" not in trace
    assert trace["verdict"] == "stored"
    assert [(one["credential"], one["outcome"]) for one in trace["arrivals"]] == [("app", "duplicate")]


async def test_an_app_is_told_nothing_of_what_others_sent(
    client: httpx.AsyncClient, app_token: dict[str, str], tracer: FakeTracer
) -> None:
    tracer.store("theirs", "other")
    known = await client.get("/v1/trace/theirs", headers=app_token)
    never = await client.get("/v1/trace/never", headers=app_token)
    assert known.status_code == never.status_code == 404
    assert known.json() == never.json() | {"mid": "theirs"}


async def test_a_mid_never_seen_is_404_with_its_verdict(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    reply = await client.get("/v1/trace/never", headers=operator)
    assert (reply.status_code, reply.json()) == (
        404,
        {
            "code": "NOT_FOUND",
            "message": "no event of this mid has been seen",
            "mid": "never",
            "verdict": "unknown",
            "complete": True,
            "stored": None,
            "reject": None,
            "arrivals": [],
        },
    )
    assert (await client.get("/v1/trace/", headers=operator)).json()["verdict"] == "unknown"


async def test_an_incomplete_search_is_never_404(
    client: httpx.AsyncClient, operator: dict[str, str], app_token: dict[str, str], tracer: FakeTracer
) -> None:
    tracer.complete = False
    for headers in (operator, app_token):
        reply = await client.get("/v1/trace/never", headers=headers)
        assert (reply.status_code, reply.json()["verdict"], reply.json()["complete"]) == (200, "unknown", False)


async def test_a_refusal_has_its_reason(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer
) -> None:
    refused = Sighting(Evidence.REJECT, "b", 2, 0, reject=Reject(1, "UNKNOWN_EID", "/eid", "no schema"))
    tracer.traces["M"] = judge("M", [refused])
    trace = (await client.get("/v1/trace/M", headers=operator)).json()
    assert trace["reject"] == {"code": "UNKNOWN_EID", "pointer": "/eid", "message": "no schema"}
    assert (trace["verdict"], trace["stored"]) == ("rejected", None)


async def test_a_path_that_is_no_text_is_400(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    reply = await client.get("/v1/trace/%ff", headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_MID")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_a_good_token_nothing_is_said(client: httpx.AsyncClient, tracer: FakeTracer, method: str) -> None:
    path = "/v1/trace/M" if method == "GET" else "/v1/trace"
    for headers in ({}, {"authorization": "Bearer nonsense"}):
        reply = await client.request(method, path, json={"mids": ["M"]}, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (401, "UNAUTHORIZED")
    assert tracer.asked == []


async def test_what_is_away_or_full_is_503_with_retry_after(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer
) -> None:
    tracer.away = True
    for reply in (
        await client.get("/v1/trace/M", headers=operator),
        await client.post("/v1/trace", json={"mids": ["M"]}, headers=operator),
    ):
        assert (reply.status_code, reply.json()["code"]) == (503, "CLICKHOUSE_UNAVAILABLE")
        assert int(reply.headers["retry-after"]) >= 1
        assert "secret-host" not in reply.text
    tracer.busy = True
    reply = await client.get("/v1/trace/M", headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (503, "BUSY")
    assert int(reply.headers["retry-after"]) >= 1


async def test_many_are_answered_in_their_order(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer
) -> None:
    tracer.store("b", "app", "app")
    for body in (
        b'{"mids": ["a", "b", "a", "", "\\ud800"], "more": 1}',
        gzip.compress(b'{"mids": ["a", "b", "a", "", "\\ud800"]}'),
    ):
        reply = await client.post("/v1/trace", content=body, headers=operator)
        assert reply.status_code == 200, reply.text
        traces = reply.json()["traces"]
        assert [one["mid"] for one in traces] == ["a", "b", "a", "", "\ud800"]
        assert [one["verdict"] for one in traces] == ["unknown", "stored", "unknown", "unknown", "unknown"]
        assert "event" not in traces[1]
    assert (await client.post("/v1/trace", json={"mids": []}, headers=operator)).json() == {"traces": []}


async def test_many_of_an_app_are_its_own(
    client: httpx.AsyncClient, app_token: dict[str, str], tracer: FakeTracer
) -> None:
    tracer.store("mine", "app")
    tracer.store("theirs", "other")
    reply = await client.post("/v1/trace", json={"mids": ["mine", "theirs"]}, headers=app_token)
    assert [one["verdict"] for one in reply.json()["traces"]] == ["stored", "unknown"]


async def test_arrivals_of_an_app_are_asked_for_by_its_credential(
    client: httpx.AsyncClient, operator: dict[str, str], app_token: dict[str, str], tracer: FakeTracer
) -> None:
    for headers in (app_token, operator):
        await client.get("/v1/trace/M", headers=headers)
        await client.post("/v1/trace", json={"mids": ["M"]}, headers=headers)
    assert tracer.credentials == ["app", "app", None, None]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "INVALID_BODY"),
        (b"nonsense", 400, "INVALID_BODY"),
        (b"\xff\xfe", 400, "INVALID_BODY"),
        (b"[]", 400, "INVALID_BODY"),
        (b'{"mid": "a"}', 400, "INVALID_BODY"),
        (b'{"mids": "a"}', 400, "INVALID_BODY"),
        (b'{"mids": ["a", 5]}', 400, "INVALID_BODY"),
        (b'{"mids": [null]}', 400, "INVALID_BODY"),
        (b"[" * 100_000, 400, "INVALID_BODY"),
        (b'{"mids": ' + b"9" * 10_000 + b"}", 400, "INVALID_BODY"),
        (b"\x1f\x8bnonsense", 400, "INVALID_GZIP"),
        (json.dumps({"mids": ["m"] * 1_001}).encode(), 413, "TOO_MANY_MIDS"),
        (b'{"mids": ["' + b"m" * (8 << 20) + b'"]}', 413, "BODY_TOO_LARGE"),
        (gzip.compress(b'{"mids": ["' + b"m" * (9 << 20) + b'"]}', mtime=0), 413, "BODY_TOO_LARGE"),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_a_bad_body_has_its_code(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer, body: bytes, status: int, code: str
) -> None:
    reply = await client.post("/v1/trace", content=body, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.json()["message"]
    assert tracer.asked == []


async def test_a_thousand_are_taken(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    reply = await client.post("/v1/trace", json={"mids": [f"m{n}" for n in range(1_000)]}, headers=operator)
    assert len(reply.json()["traces"]) == 1_000


async def test_an_encoding_that_cannot_be_read_is_415(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    reply = await client.post("/v1/trace", content=b"{}", headers={**operator, "content-encoding": "br"})
    assert (reply.status_code, reply.json()["code"]) == (415, "UNSUPPORTED_ENCODING")


async def test_replies_are_as_documented(
    client: httpx.AsyncClient, operator: dict[str, str], tracer: FakeTracer
) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    one = paths["/v1/trace/{mid}"]["get"]["responses"]
    schema = one["200"]["content"]["application/json"]["schema"]
    for example in one["200"]["content"]["application/json"]["examples"].values():
        jsonschema.validate(example["value"], schema)
    jsonschema.validate(one["404"]["content"]["application/json"]["example"], schema)
    many = paths["/v1/trace"]["post"]["responses"]["200"]["content"]["application/json"]
    jsonschema.validate(many["example"], many["schema"])
    tracer.store("M", "app", "other")
    tracer.traces["R"] = judge("R", [Sighting(Evidence.REJECT, "b", 0, 0, reject=Reject(1, "POISON", "", ""))])
    for mid in ("M", "R", "never"):
        jsonschema.validate((await client.get(f"/v1/trace/{mid}", headers=operator)).json(), schema)
