"""The checks before a write, in their order, in the words that clients compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.contract.assignments.conftest import (
    ACADEMY,
    ASSET,
    DELETED,
    INACTIVE,
    LEARNER,
    OTHER,
    READER,
    TEACHER,
    Platform,
    Record,
    headers_of,
    path_of,
)

NOT_PROVIDED = {"detail": "Authentication credentials were not provided.", "status_code": 401}
INVALID = {"error": "Invalid or Inactive Token", "is_authenticated": "False", "status_code": 401}
MISSING = {
    "detail": "Missing academy_id parameter expected for the endpoint url or 'Academy' header",
    "status_code": 403,
}
METHODS = ("POST", "PUT", "PATCH", "GET")
BROKEN = b'{"engagement_score": '  # whoever is refused before the body is read does not hear of it


def forbidden(user: int, academy: object, capability: str = "crud_telemetry") -> dict[str, Any]:
    message = f"You (user: {user}) don't have this capability: {capability} for academy {academy}"
    return {"detail": message, "status_code": 403}


async def refused(client: httpx.AsyncClient, method: str, headers: dict[str, str], path: str = "") -> tuple[int, Any]:
    reply = await client.request(method, path or path_of(), headers=headers, content=BROKEN)
    return reply.status_code, reply.json()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("authorization", [None, "", "Bearer abc", "Basic dXNlcjpwYXNz", "abc", "TokenX abc"])
async def test_without_a_token_nobody_is_heard(
    client: httpx.AsyncClient, platform: Platform, method: str, authorization: str | None
) -> None:
    headers = {"academy": "x"} if authorization is None else {"academy": "x", "authorization": authorization}
    reply = await client.request(method, path_of(user=999), headers=headers, content=BROKEN)
    assert (reply.status_code, reply.json()) == (401, NOT_PROVIDED)
    assert reply.headers["www-authenticate"] == "Token"


@pytest.mark.parametrize("authorization", ["Token abc", "token abc", "Token", "Token ", "Token a b", "Token \xe9"])
async def test_a_token_must_be_somebodys(client: httpx.AsyncClient, platform: Platform, authorization: str) -> None:
    reply = await client.post(path_of(), headers={"authorization": authorization.encode("latin-1")}, content=BROKEN)  # type: ignore[dict-item]
    assert (reply.status_code, reply.json()) == (401, INVALID)
    assert reply.headers["www-authenticate"] == "Token"


async def test_a_revoked_token_is_nobodys(client: httpx.AsyncClient, platform: Platform) -> None:
    token = platform.users.create_token(TEACHER)
    platform.users.revoke_tokens(TEACHER)
    assert await refused(client, "POST", headers_of(token)) == (401, INVALID)


@pytest.mark.parametrize("method", METHODS)
async def test_an_academy_must_be_named(client: httpx.AsyncClient, platform: Platform, method: str) -> None:
    headers = {"authorization": f"Token {platform.teacher}"}
    assert await refused(client, method, headers, path_of(user=999)) == (403, MISSING)


@pytest.mark.parametrize("said", ["x", "", "1.5", "-1", "1e3", "one", "0x1", "1 2", "9" * 50])
async def test_an_academy_is_a_number(client: httpx.AsyncClient, platform: Platform, said: str) -> None:
    status, body = await refused(client, "POST", headers_of(platform.teacher, said))
    assert (status, body) == (400, {"detail": f"Academy ID needs to be an integer: {said}", "status_code": 400})
    headers = {"authorization": f"Token {platform.teacher}"}
    reply = await client.post(path_of(), params={"academy": said}, headers=headers, content=BROKEN)
    assert reply.status_code == 400


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("academy", [OTHER, 999, 0, 2**63, 10**30])
async def test_without_the_capability_nothing_is_told(
    client: httpx.AsyncClient, platform: Platform, method: str, academy: int
) -> None:
    headers = headers_of(platform.teacher, academy)
    assert await refused(client, method, headers, path_of(user=999)) == (403, forbidden(TEACHER, academy))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_whoever_may_read_may_not_write(client: httpx.AsyncClient, platform: Platform, method: str) -> None:
    headers = headers_of(platform.reader)
    assert await refused(client, method, headers) == (403, forbidden(READER, ACADEMY))
    await client.post(path_of(), headers=headers_of(platform.teacher), json={})
    assert (await client.get(path_of(), headers=headers)).status_code == 200


@pytest.mark.parametrize("method", METHODS)
async def test_a_deleted_and_an_inactive_academy(client: httpx.AsyncClient, platform: Platform, method: str) -> None:
    for academy, message in ((DELETED, "This academy is deleted"), (INACTIVE, "This academy is not active")):
        status, body = await refused(client, method, headers_of(platform.teacher, academy), path_of(user=999))
        assert (status, body) == (403, {"detail": message, "status_code": 403})
        # That it is deleted learns only who had a part in it.
        status, body = await refused(client, method, headers_of(platform.reader, academy))
        assert (status, body) == (403, forbidden(READER, academy))


async def test_the_academy_may_stand_in_the_query(client: httpx.AsyncClient, platform: Platform) -> None:
    headers = {"authorization": f"Token {platform.teacher}"}
    reply = await client.post(path_of(), params={"academy": "1"}, headers=headers, json={})
    assert reply.status_code == 201
    reply = await client.post(path_of(), params={"academy": "4"}, headers={**headers, "academy": "01"}, json={})
    assert reply.status_code == 200, "the header counts"


@pytest.mark.parametrize("user", ["999", "-1", "0", str(2**63), "9" * 30, "9" * 6000, "abc", "1.0", "%F0%9F%92%A5"])
async def test_who_is_no_user_has_no_record(client: httpx.AsyncClient, teacher: dict[str, str], user: str) -> None:
    said = "💥" if user.startswith("%") else user[:100]
    body = {"detail": f"User with id {said} not found", "status_code": 404, "slug": "user-not-found"}
    assert await refused(client, "POST", teacher, path_of(user=user)) == (404, body)
    body = {
        "detail": f"Assignment telemetry not found for asset {ASSET} and user {said}",
        "status_code": 404,
        "slug": "telemetry-not-found",
    }
    for method in ("PUT", "PATCH", "GET"):
        assert await refused(client, method, teacher, path_of(user=user)) == (404, body)


async def test_a_user_may_be_written_with_zeros(record: Callable[..., Record]) -> None:
    made = await record(user="0123").post({"completion_rate": 5})
    assert made["user"] == LEARNER
    assert (await record(user=LEARNER).get())["id"] == made["id"]


async def test_put_makes_nothing(
    client: httpx.AsyncClient, teacher: dict[str, str], record: Callable[..., Record]
) -> None:
    for method in ("PUT", "PATCH", "GET"):
        status, body = await refused(client, method, teacher)
        assert (status, body["slug"]) == (404, "telemetry-not-found")
    await record().post()
    assert (await record().put({"completion_rate": 1}))["completion_rate"] == 1.0


async def test_a_record_is_of_one_academy(
    client: httpx.AsyncClient, platform: Platform, record: Callable[..., Record]
) -> None:
    await record().post()
    platform.grants.grant(READER, OTHER, "crud_telemetry")
    reply = await client.get(path_of(), headers=headers_of(platform.reader, OTHER))
    assert (reply.status_code, reply.json()["slug"]) == (404, "telemetry-not-found")


@pytest.mark.parametrize(
    ("encoded", "status"),
    [
        ("%FF", 400),
        ("a%00b", 400),
        ("x" * 1025, 400),
        ("x" * 1000, 201),
        ("%C3%A9" * 1000, 201),
        ("a%2Fb%2F..%2Fuser%2F1%2Ftelemetry", 201),
        ("a%20b%3Fc%23d%25", 201),
        ("%F0%9F%92%A5", 201),
    ],
)
async def test_slugs(client: httpx.AsyncClient, teacher: dict[str, str], encoded: str, status: int) -> None:
    path = f"/v1/assignment/academy/asset/{encoded}/user/{LEARNER}/telemetry"
    reply = await client.post(path, headers=teacher, json={"completion_rate": 7})
    assert reply.status_code == status, reply.text
    if status == 400:
        assert list(reply.json()) == ["asset_slug"]
        return
    from urllib.parse import unquote

    assert reply.json()["asset_slug"] == unquote(encoded)
    again = await client.get(path, headers=teacher)
    assert (again.status_code, again.json()) == (200, reply.json())
    page = await client.get(f"/v1/assignment/academy/asset/{encoded}/telemetry", headers=teacher)
    assert page.json()["count"] == 1


async def test_other_methods_and_paths(client: httpx.AsyncClient, teacher: dict[str, str]) -> None:
    reply = await client.delete(path_of(), headers=teacher)
    assert (reply.status_code, reply.json()["status_code"]) == (405, 405)
    reply = await client.get("/v1/assignment/nothing", headers=teacher)
    assert (reply.status_code, reply.json()["status_code"]) == (404, 404)
