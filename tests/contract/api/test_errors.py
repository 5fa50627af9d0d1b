import httpx
import pytest

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
    from dataclasses import replace

    class Broken:
        async def find(self, type_: str, id_: str) -> None:
            raise RuntimeError("inner words")

    app = create_app(services.settings, services=replace(services, finder=Broken()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as client:
        reply = await client.get("/v1/dimensions/user/u1", headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "inner words" not in reply.text
    assert "Traceback" not in reply.text
