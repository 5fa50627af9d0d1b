"""``GET /v1/admin/log``, and what operators do over HTTP in it."""

from __future__ import annotations

import httpx

from midstream.registry.credentials import Credentials

LOG = "/v1/admin/log"


async def test_an_operators_act_names_the_credential_the_address_and_the_request(
    client: httpx.AsyncClient, operator: dict[str, str]
) -> None:
    reply = await client.delete("/v1/dimensions/user/u1", headers=operator | {"x-request-id": "r-1"})
    assert reply.status_code == 202
    reply = await client.get(LOG, headers=operator, params={"limit": 1})
    assert reply.status_code == 200
    (act,) = reply.json()["acts"]
    assert act["action"] == "delete.ask"
    assert act["object"] == f"job/{(await client.get('/v1/sync', headers=operator)).json()['jobs'][0]['id']}"
    assert act["actor"]["kind"] == "credential"
    assert act["actor"]["name"]
    assert act["actor"]["address"] == "127.0.0.1"
    assert (act["details"], act["outcome"], act["request_id"]) == ({"type": "user", "ids": 1}, "done", "r-1")
    assert act["at"].endswith("Z")


async def test_pages(client: httpx.AsyncClient, operator: dict[str, str], credentials: Credentials) -> None:
    for number in range(5):
        credentials.create(f"app-{number}-{id(client)}")
    objects, before = [], None
    while True:
        params = {"limit": 2} | ({} if before is None else {"before": before})
        page = (await client.get(LOG, headers=operator, params=params)).json()
        objects += [act["object"] for act in page["acts"]]
        before = page["next"]
        if before is None:
            break
    assert objects[:5] == [f"credential/app-{number}-{id(client)}" for number in reversed(range(5))]
    assert len(set(objects)) >= 6
    later = await client.get(LOG, headers=operator, params={"since": "2999-01-01T00:00:00"})
    assert later.json() == {"acts": [], "next": None}


async def test_only_an_operator_reads_it(client: httpx.AsyncClient, app_token: dict[str, str]) -> None:
    assert (await client.get(LOG)).status_code == 401
    assert (await client.get(LOG, headers=app_token)).status_code == 403


async def test_what_cannot_be_asked_for(client: httpx.AsyncClient, operator: dict[str, str]) -> None:
    for query in (
        "limit=0",
        "limit=1001",
        "before=0",
        f"before={2**63}",
        "since=yesterday",
        "since=0001-01-01T00:00:00%2B14:00",
    ):
        reply = await client.get(f"{LOG}?{query}", headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_REQUEST"), query
