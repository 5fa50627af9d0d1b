import httpx
import jwt
import pytest

from midstream.registry.credentials import Credentials
from midstream.settings import Settings

PATH = "/api/api-manager/v1/consumer/{}/credential/register"


async def test_registering_gives_key_secret_and_a_token_that_works(
    client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    body = {"request": {"key": "key-1"}, "params": {"msgid": "m1"}}
    reply = await client.post(PATH.format("app-1"), json=body, headers=operator)
    assert reply.status_code == 200
    answer = reply.json()
    assert (answer["id"], answer["ver"]) == ("ekstep.api.am.adminutil.consumer.create", "1.0")
    assert answer["params"]["status"] == "successful"
    assert answer["params"]["msgid"] == "m1"
    assert answer["ts"].endswith("Z")
    result = answer["result"]
    assert result["key"] == "key-1"
    assert jwt.decode(result["token"], result["secret"], algorithms=["HS256"]) == {"iss": "key-1"}
    token = {"authorization": f"Bearer {result['token']}"}
    # An app's token: known, but not an operator's.
    assert (await client.put("/v1/dimensions/user/u", json={}, headers=token)).status_code == 403
    again = await client.post(PATH.format("app-1"), json=body, headers=operator)
    assert again.json()["result"] == result


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"{}", b'{"request":{}}', b'{"request":{"key":1}}', b'{"request":null}', b"\xff", b"[" * 5000],
)
async def test_a_body_of_the_wrong_shape_is_400(
    client: httpx.AsyncClient, operator: dict[str, str], body: bytes
) -> None:
    reply = await client.post(PATH.format("app-1"), content=body, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_BODY")


async def test_too_large_is_413(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    reply = await client.post(PATH.format("app-1"), content=b" " * 70_000, headers=operator)
    assert reply.status_code == 413


@pytest.mark.parametrize(("name", "key"), [("a%20b", "k"), ("a", "k/../x"), ("a", ""), ("%FF", "k"), ("a" * 200, "k")])
async def test_a_name_or_key_that_cannot_be_is_400(
    client: httpx.AsyncClient, operator: dict[str, str], name: str, key: str
) -> None:
    reply = await client.post(PATH.format(name), json={"request": {"key": key}}, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_NAME")


async def test_a_key_of_another_or_a_revoked_one_is_409(
    client: httpx.AsyncClient, operator: dict[str, str], credentials: Credentials
) -> None:
    credentials.create("other", key="taken")
    credentials.create("gone", key="gone")
    credentials.revoke("gone")
    for name, key in (("app-1", "taken"), ("op", "op"), ("gone", "gone")):
        reply = await client.post(PATH.format(name), json={"request": {"key": key}}, headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (409, "CONFLICT"), key


async def test_only_an_operator_may(client: httpx.AsyncClient, app_token: dict[str, str]) -> None:
    body = {"request": {"key": "key-1"}}
    assert (await client.post(PATH.format("a"), json=body)).status_code == 401
    assert (await client.post(PATH.format("a"), json=body, headers=app_token)).status_code == 403


async def test_the_registry_away_is_503(
    client: httpx.AsyncClient, operator: dict[str, str], settings: Settings
) -> None:
    (settings.home / "registry.db").write_bytes(b"no database at all" * 100)
    reply = await client.post(PATH.format("a"), json={"request": {"key": "k"}}, headers=operator)
    assert (reply.status_code, reply.json()["code"]) == (503, "REGISTRY_UNAVAILABLE")
