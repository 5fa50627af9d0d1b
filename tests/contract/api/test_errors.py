from dataclasses import replace

import httpx
import pytest

from midstream.rate_limiter import RateLimiter
from serve.app import create_app
from serve.services import Services


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/docs/static/nothing.js", "/docs/static/../app.py", "/v1/dimensions"]
)
async def test_an_unknown_path_is_404_in_json(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)
    assert reply.status_code in (404, 405)
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["code"] in ("NOT_FOUND", "METHOD_NOT_ALLOWED")
    assert reply.json()["message"]


async def test_another_method_is_405_in_json(client: httpx.AsyncClient) -> None:
    reply = await client.delete("/health")
    assert (reply.status_code, reply.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in reply.headers["allow"]


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic eDp5",
        "Bearer a.b.c",
        "Bearer " + "x" * 20_000,
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    ],
)
async def test_a_bad_token_is_401_never_500(client: httpx.AsyncClient, authorization: str) -> None:
    for path in ("/v1/validate", "/v1/dimensions/user"):
        reply = await client.post(path, content=b"{}", headers={"authorization": authorization})
        assert (reply.status_code, reply.json()) == (401, {"code": "UNAUTHORIZED", "message": "Unauthorized"})


async def test_a_fault_of_ours_is_500_in_json_without_a_traceback(services: Services, operator: dict[str, str]) -> None:
    class Broken:
        async def find(self, type_: str, id_: str) -> None:
            raise RuntimeError("inner words")

    app = create_app(services.settings, services=replace(services, finder=Broken()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as client:
        reply = await client.get("/v1/dimensions/user/u1", headers=operator | {"x-request-id": "r-1"})
    assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
    assert reply.headers["x-request-id"] == "r-1"
    assert "inner words" not in reply.text
    assert "Traceback" not in reply.text


async def test_every_reply_has_the_requests_id(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    for path, status in {"/health": 200, "/nothing": 404, "/v1/dimensions/user/none": 404, "/docs": 200}.items():
        replies = [await client.get(path, headers=operator | given) for given in ({}, {}, {"x-request-id": "r-1"})]
        assert {reply.status_code for reply in replies} == {status}
        ids = [reply.headers["x-request-id"] for reply in replies]
        assert ids[2] == "r-1"
        assert len(set(ids)) == 3
        assert all(reply.headers["x-content-type-options"] == "nosniff" for reply in replies)


async def test_an_envelope_names_the_request_by_its_id(client: httpx.AsyncClient) -> None:
    for path in ("/v3/device/register/d1", "/v1/dataset/D001", "/api/data/v1/index/sync"):
        reply = await client.post(path, content=b"{}")
        assert reply.status_code >= 400
        assert reply.json()["params"]["resmsgid"] == reply.headers["x-request-id"]


async def test_too_many_requests_of_one_credential_are_429(
    services: Services, operator: dict[str, str], app_token: dict[str, str]
) -> None:
    app = create_app(services.settings, services=replace(services, rates=RateLimiter(2, clock=lambda: 1.0)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as client:
        replies = [await client.get("/v1/dimensions/user/none", headers=operator) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [404, 404, 429]
        assert replies[2].json()["code"] == "RATE_LIMITED"
        assert replies[2].headers["retry-after"] == "1"
        assert (await client.get("/v1/dimensions/user/none", headers=app_token)).status_code == 403  # another's
        assert (await client.get("/health")).status_code == 200
        fleet = await client.get("/v1/fleet/devices", headers=operator)
        assert (fleet.status_code, set(fleet.json())) == (429, {"error"})
