"""``/v3/device``: registrations and profiles over HTTP."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from midstream.ip_location import IpLocations
from midstream.settings import Settings
from serve.app import create_app
from serve.register.attributes import Row, read_attributes
from serve.register.body import MAX_BODY_BYTES
from serve.services import Services
from tests.support.ip_locations import city_record, write_locations

from .conftest import FakeDevices, FakePublisher

REGISTER = "/v3/device/register/d1"
PROFILE = "/v3/device/profile/d1"
UNKNOWN = {"state": "", "district": ""}
KARNATAKA = {"state": "Karnataka", "district": "Mysuru"}
KERALA = {"state": "Kerala", "district": "Kochi"}


@pytest.fixture
def ip_locations(tmp_path: Path) -> IpLocations:
    records = {"1.2.3.0/24": city_record("Karnataka", "Mysuru"), "1.2.4.0/24": KERALA}
    return IpLocations(write_locations(tmp_path / "places.mmdb", records))


@pytest.fixture
async def from_kerala(settings: Settings, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Who calls from an address of Kerala."""
    app = create_app(settings, services=services)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("1.2.4.5", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://midstream") as opened:
        yield opened


def attributes(publisher: FakePublisher) -> dict[str, Any]:
    """Return those of the row that was published last."""
    found: dict[str, Any] = json.loads(publisher.rows[-1].attributes)
    return found


def good(reply: httpx.Response, id_: str) -> dict[str, Any]:
    """Check the envelope of a good reply; return its result."""
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert set(body) == {"id", "ver", "ts", "params", "responseCode", "result"}
    assert (body["id"], body["ver"], body["responseCode"]) == (id_, "1.0", "OK")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", body["ts"])
    datetime.fromisoformat(body["ts"])
    params = body["params"]
    assert (params["status"], params["err"], params["errmsg"]) == ("successful", None, None)
    assert len(params["resmsgid"]) == 36
    result: dict[str, Any] = body["result"]
    return result


def refused(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the envelope of an error reply; return its params."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert body["id"] in ("analytics.device-register", "analytics.device-profile")
    assert body["responseCode"] == ("CLIENT_ERROR" if status < 500 else "SERVER_ERROR")
    assert body["result"] == {}
    params: dict[str, Any] = body["params"]
    assert (params["status"], params["err"]) == ("failed", code)
    assert params["errmsg"]
    return params


async def test_all_that_is_said_becomes_the_row_but_what_is_personal(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    request = {
        "did": "d1",
        "producer": "app.example",
        "dspec": {"os": "Android 14", "mem": 3.50, "cpu": ["a", {"b": None}]},
        "uaspec": {"agent": "Chrome"},
        "fcmToken": "fcm-secret",
        "first_access": 1700000000000,
        "ip_addr": "1.2.3.4",
        "ext": {"userid": "user-7", "url": "https://example.org"},
        "userDeclaredLocation": {"state": " Goa ", "district": "North Goa", "stateId": "s-1"},
        "channel": "channel-1",
    }
    body = {"id": "sdk", "ver": "1.0", "ts": "x", "params": {"msgid": "m-7"}, "request": request}
    reply = await client.post(REGISTER, json=body, headers=app_token)
    assert good(reply, "analytics.device-register") == {"message": "Device registered successfully", "actions": []}
    assert reply.json()["params"]["msgid"] == "m-7"
    [row] = publisher.rows
    assert (row.type, row.id, row.deleted) == ("device", "d1", False)
    assert attributes(publisher) == {
        "producer": "app.example",
        "dspec": request["dspec"],
        "uaspec": {"agent": "Chrome"},
        "fcmToken": "fcm-secret",
        "first_access": 1700000000000,
        "userDeclaredLocation": {"state": "Goa", "district": "North Goa"},
        "ipLocation": KARNATAKA,
    }
    for personal in ("user-7", "example.org", "1.2.3.4", "s-1", "channel-1"):
        assert personal not in row.attributes


async def test_the_token_and_the_address_are_not_logged(
    client: httpx.AsyncClient,
    app_token: dict[str, str],
    publisher: FakePublisher,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = {"request": {"fcmToken": "fcm-secret", "ip_addr": "1.2.3.4"}}
    assert (await client.post(REGISTER, json=body, headers=app_token)).status_code == 200
    publisher.fail_after = 0
    body["request"]["fcmToken"] = "fcm-secret-2"
    assert (await client.post(REGISTER, json=body, headers=app_token)).status_code == 503
    told = capsys.readouterr()
    logged = told.out + told.err + caplog.text
    assert "kafka.unavailable" in logged
    assert "fcm-secret" not in logged
    assert "1.2.3.4" not in logged


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"producer": "p"}, {"producer": "p"}),
        ({"dspec": {}}, {"dspec": {}}),
        ({"uaspec": {"a": 1}}, {"uaspec": {"a": 1}}),
        ({"fcmToken": "t"}, {"fcmToken": "t"}),
        ({"first_access": 0}, {"first_access": 0}),
        ({"first_access": "1700000000000"}, {"first_access": 1700000000000}),
        ({"userDeclaredLocation": {"state": "Goa"}}, {"userDeclaredLocation": {"state": "Goa", "district": ""}}),
        ({"userDeclaredLocation": {"district": "X"}}, {"userDeclaredLocation": {"state": "", "district": "X"}}),
        ({"userDeclaredLocation": {"state": " ", "district": ""}}, {}),
        ({"userDeclaredLocation": {}}, {}),
        ({"ip_addr": "1.2.3.4"}, {"ipLocation": KARNATAKA}),
        ({"ip_addr": "::ffff:1.2.3.4"}, {"ipLocation": KARNATAKA}),
        ({"ip_addr": "9.9.9.9"}, {}),
        ({"ip_addr": "10.0.0.1"}, {}),
        ({"ip_addr": "no address"}, {}),
        ({"ext": {}}, {}),
        ({"producer": "", "fcmToken": ""}, {}),
        (dict.fromkeys(["did", "producer", "dspec", "uaspec", "fcmToken", "first_access", "ip_addr", "ext"]), {}),
        ({"userDeclaredLocation": None}, {}),
        ({"unknown": [1]}, {}),
        ({}, {}),
    ],
)
async def test_each_field_is_optional(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, said: Any, kept: Any
) -> None:
    good(await client.post(REGISTER, json={"request": said}, headers=app_token), "analytics.device-register")
    assert attributes(publisher) == kept


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        ({"did": 5}, "/request/did"),
        ({"did": "another"}, "/request/did"),
        ({"producer": {}}, "/request/producer"),
        ({"producer": "x" * 257}, "/request/producer"),
        ({"dspec": []}, "/request/dspec"),
        ({"dspec": "{}"}, "/request/dspec"),
        ({"uaspec": 1}, "/request/uaspec"),
        ({"fcmToken": ["t"]}, "/request/fcmToken"),
        ({"fcmToken": "x" * 4097}, "/request/fcmToken"),
        ({"first_access": "yesterday"}, "/request/first_access"),
        ({"first_access": "٣"}, "/request/first_access"),
        ({"first_access": -1}, "/request/first_access"),
        ({"first_access": 2**60}, "/request/first_access"),
        ({"first_access": True}, "/request/first_access"),
        ({"first_access": {}}, "/request/first_access"),
        ({"ip_addr": 16909060}, "/request/ip_addr"),
        ({"ext": []}, "/request/ext"),
        ({"ext": {"userid": 7}}, "/request/ext/userid"),
        ({"ext": {"url": {}}}, "/request/ext/url"),
        ({"userDeclaredLocation": ["Goa"]}, "/request/userDeclaredLocation"),
        ({"userDeclaredLocation": "Goa"}, "/request/userDeclaredLocation"),
        ({"userDeclaredLocation": {"state": 5}}, "/request/userDeclaredLocation/state"),
        ({"userDeclaredLocation": {"district": ["x"]}}, "/request/userDeclaredLocation/district"),
        ({"userDeclaredLocation": {"state": "x" * 257}}, "/request/userDeclaredLocation/state"),
    ],
)
async def test_a_wrong_field_is_named(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, said: Any, pointer: str
) -> None:
    params = refused(await client.post(REGISTER, json={"request": said}, headers=app_token), 400, "INVALID_REQUEST")
    assert params["pointer"] == pointer
    assert params["errmsg"].startswith(f"{pointer}: ")
    assert publisher.rows == []


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"", "INVALID_JSON", ""),
        (b"nonsense", "INVALID_JSON", ""),
        (b'{"request":{}', "INVALID_JSON", ""),
        (b'{"request":{}} x', "INVALID_JSON", ""),
        (b'{"request":{"dspec":{"a":NaN}}}', "INVALID_JSON", ""),
        (b'{"request":{"producer":"\\ud800"}}', "INVALID_JSON", ""),
        (b'{"request":{},"request":{}}', "INVALID_JSON", ""),
        (b'{"request":{"fcmToken":"a","fcmToken":"b"}}', "INVALID_JSON", ""),
        (b'{"request":{"dspec":{"a":1,"a":2}}}', "INVALID_JSON", ""),
        (b'{"request":{"dspec":{"a":1e999}}}', "INVALID_JSON", "/request/dspec"),
        (b'{"request":{"dspec":' + b'{"a":' * 65 + b"1" + b"}" * 66 + b"}", "TOO_DEEP", "/request/dspec"),
        (b'{"request":{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}}", "TOO_DEEP", ""),
        (b'{"request":{"producer":"\xff"}}', "INVALID_UTF8", ""),
        (b"[]", "INVALID_REQUEST", ""),
        (b"null", "INVALID_REQUEST", ""),
        (b"{}", "INVALID_REQUEST", "/request"),
        (b'{"request":null}', "INVALID_REQUEST", "/request"),
        (b'{"request":[]}', "INVALID_REQUEST", "/request"),
        (b'{"request":{},"id":5}', "INVALID_REQUEST", "/id"),
        (b'{"request":{},"ver":1.0}', "INVALID_REQUEST", "/ver"),
        (b'{"request":{},"params":{"msgid":7}}', "INVALID_REQUEST", "/params/msgid"),
        (b'\x1f\x8b{"request":{}}', "INVALID_GZIP", None),
    ],
)
async def test_a_body_that_cannot_be_taken_is_told_why(
    client: httpx.AsyncClient,
    app_token: dict[str, str],
    publisher: FakePublisher,
    body: bytes,
    code: str,
    pointer: str | None,
) -> None:
    params = refused(await client.post(REGISTER, content=body, headers=app_token), 400, code)
    assert params.get("pointer") == pointer
    assert publisher.rows == []


async def test_a_gzipped_body_is_taken(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    body = gzip.compress(json.dumps({"request": {"producer": "p"}}).encode())
    for headers in ({}, {"content-encoding": "gzip"}):
        reply = await client.post(f"{REGISTER}{len(headers)}", content=body, headers=app_token | headers)
        good(reply, "analytics.device-register")
        assert attributes(publisher) == {"producer": "p"}


@pytest.mark.parametrize("packed", [False, True])
async def test_a_large_body_is_413(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, packed: bool
) -> None:
    body = json.dumps({"request": {"dspec": {"a": "x" * 2**20}}}).encode()
    reply = await client.post(REGISTER, content=gzip.compress(body) if packed else body, headers=app_token)
    refused(reply, 413, "BODY_TOO_LARGE")
    assert publisher.rows == []


async def test_attributes_that_grow_too_large_are_413(
    client: httpx.AsyncClient, app_token: dict[str, str], stored_devices: FakeDevices, settings: Settings
) -> None:
    assert settings.max_dimension_bytes < MAX_BODY_BYTES
    stored_devices.rows["d1"] = Row({"pushed": b'"' + b"x" * (settings.max_dimension_bytes - 20) + b'"'}, 1)
    reply = await client.post(REGISTER, json={"request": {"producer": "p" * 100}}, headers=app_token)
    refused(reply, 413, "TOO_LARGE")


async def test_another_encoding_is_415(client: httpx.AsyncClient, app_token: dict[str, str]) -> None:
    reply = await client.post(REGISTER, content=b"{}", headers=app_token | {"content-encoding": "br"})
    refused(reply, 415, "UNSUPPORTED_ENCODING")


@pytest.mark.parametrize("authorization", [None, "", "Bearer x", "Basic eDp5"])
async def test_without_a_good_token_it_is_401(
    client: httpx.AsyncClient, publisher: FakePublisher, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    for reply in (
        await client.post(REGISTER, json={"request": {}}, headers=headers),
        await client.get(PROFILE, headers=headers),
    ):
        refused(reply, 401, "UNAUTHORIZED")
        assert reply.json()["message"] == "Unauthorized"
        assert reply.headers["www-authenticate"] == "Bearer"
    assert publisher.rows == []


async def test_an_operator_may_too(
    client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher
) -> None:
    good(await client.post(REGISTER, json={"request": {}}, headers=operator), "analytics.device-register")
    good(await client.get(PROFILE, headers=operator), "analytics.device-profile")
    assert len(publisher.rows) == 1


@pytest.mark.parametrize(
    ("path", "did"),
    [
        ("a%2Fb", "a/b"),
        ("a/b", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("%C3%BC%20x+", "ü x+"),
        ("register/x", "register/x"),
        ("x" * 1024, "x" * 1024),
    ],
)
async def test_the_path_names_the_device(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, path: str, did: str
) -> None:
    location = {"userDeclaredLocation": KERALA}
    reply = await client.post(
        f"/v3/device/register/{path}", json={"request": {"did": did} | location}, headers=app_token
    )
    good(reply, "analytics.device-register")
    assert publisher.rows[-1].id == did
    result = good(await client.get(f"/v3/device/profile/{path}", headers=app_token), "analytics.device-profile")
    assert result == location | {"ipLocation": UNKNOWN}


@pytest.mark.parametrize("path", ["", "%FF", "x" * 1025, "%C3%BC" * 513, "a%00b"])
async def test_a_device_that_cannot_be_is_400(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, path: str
) -> None:
    reply = await client.post(f"/v3/device/register/{path}", json={"request": {}}, headers=app_token)
    refused(reply, 400, "INVALID_ID")
    refused(await client.get(f"/v3/device/profile/{path}", headers=app_token), 400, "INVALID_ID")
    assert publisher.rows == []


async def test_another_path_or_method_is_told_in_the_envelope(client: httpx.AsyncClient) -> None:
    refused(await client.get("/v3/device"), 404, "NOT_FOUND")
    refused(await client.get(REGISTER), 405, "METHOD_NOT_ALLOWED")


async def test_fields_that_are_not_given_stay(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, stored_devices: FakeDevices
) -> None:
    stored_devices.rows["d1"] = Row(read_attributes('{"make":"Example","n":1.10,"fcmToken":"t"}'), 5)
    for said in ({"producer": "p"}, {"fcmToken": "t2"}, {"userDeclaredLocation": KERALA}, {"ip_addr": "1.2.3.4"}):
        good(await client.post(REGISTER, json={"request": said}, headers=app_token), "analytics.device-register")
    assert publisher.rows[-1].attributes == (
        '{"make":"Example","n":1.10,"fcmToken":"t2","producer":"p",'
        '"userDeclaredLocation":{"state":"Kerala","district":"Kochi"},'
        '"ipLocation":{"state":"Karnataka","district":"Mysuru"}}'
    )


async def test_the_same_again_is_not_published(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    body = {"request": {"dspec": {"a": 1}, "first_access": 5, "userDeclaredLocation": KERALA, "ip_addr": "1.2.3.4"}}
    for _ in range(5):
        good(await client.post(REGISTER, json=body, headers=app_token), "analytics.device-register")
    assert len(publisher.rows) == 1


async def test_the_callers_address_counts_where_none_is_given(
    from_kerala: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    for said, expected in (
        ({}, KERALA),
        ({"ip_addr": "192.168.1.1"}, KERALA),
        ({"ip_addr": "unknown"}, KERALA),
        ({"ip_addr": "1.2.3.4"}, KARNATAKA),
    ):
        await from_kerala.post(REGISTER, json={"request": said}, headers=app_token)
        assert attributes(publisher) == {"ipLocation": expected}


async def test_a_header_alone_makes_no_address(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    headers = app_token | {"x-forwarded-for": "1.2.3.4"}
    await client.post(REGISTER, json={"request": {}}, headers=headers)
    assert attributes(publisher) == {}


async def test_a_place_that_is_not_known_leaves_the_former(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    for address in ("1.2.3.4", "9.9.9.9"):
        await client.post(REGISTER, json={"request": {"ip_addr": address, "producer": address}}, headers=app_token)
    assert attributes(publisher)["ipLocation"] == KARNATAKA


async def test_a_profile_shows_both_locations(
    client: httpx.AsyncClient, app_token: dict[str, str], stored_devices: FakeDevices
) -> None:
    text = json.dumps({"userDeclaredLocation": KERALA | {"x": 1}, "ipLocation": KARNATAKA, "fcmToken": "secret"})
    stored_devices.rows["d1"] = Row(read_attributes(text), 5)
    reply = await client.get(PROFILE, headers=app_token)
    result = good(reply, "analytics.device-profile")
    assert result == {"userDeclaredLocation": KERALA, "ipLocation": KARNATAKA}
    assert "secret" not in reply.text


async def test_a_profile_is_of_what_was_just_registered(client: httpx.AsyncClient, app_token: dict[str, str]) -> None:
    await client.post(REGISTER, json={"request": {"userDeclaredLocation": KERALA}}, headers=app_token)
    result = good(await client.get(PROFILE, headers=app_token), "analytics.device-profile")
    assert result == {"userDeclaredLocation": KERALA, "ipLocation": UNKNOWN}


async def test_an_unknown_device_has_a_profile_by_its_address(
    client: httpx.AsyncClient, from_kerala: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    assert good(await client.get(PROFILE, headers=app_token), "analytics.device-profile") == {"ipLocation": UNKNOWN}
    assert good(await from_kerala.get(PROFILE, headers=app_token), "analytics.device-profile") == {"ipLocation": KERALA}
    assert publisher.rows == []


async def test_what_the_device_registered_counts_before_who_asks(
    client: httpx.AsyncClient, from_kerala: httpx.AsyncClient, app_token: dict[str, str]
) -> None:
    await client.post(REGISTER, json={"request": {"ip_addr": "1.2.3.4"}}, headers=app_token)
    result = good(await from_kerala.get(PROFILE, headers=app_token), "analytics.device-profile")
    assert result == {"ipLocation": KARNATAKA}


async def test_a_deleted_device_is_an_unknown_one(
    client: httpx.AsyncClient, app_token: dict[str, str], stored_devices: FakeDevices
) -> None:
    stored_devices.rows["d1"] = Row({}, 5, deleted=True)
    assert good(await client.get(PROFILE, headers=app_token), "analytics.device-profile") == {"ipLocation": UNKNOWN}


async def test_without_clickhouse_it_is_503(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher, stored_devices: FakeDevices
) -> None:
    stored_devices.away = True
    for reply in (
        await client.post(REGISTER, json={"request": {"producer": "p"}}, headers=app_token),
        await client.get(PROFILE, headers=app_token),
    ):
        refused(reply, 503, "CLICKHOUSE_UNAVAILABLE")
        assert int(reply.headers["retry-after"]) > 0
        assert "secret-host" not in reply.text
    assert publisher.rows == []


async def test_without_kafka_it_is_503_and_may_be_sent_again(
    client: httpx.AsyncClient, app_token: dict[str, str], publisher: FakePublisher
) -> None:
    publisher.fail_after = 0
    reply = await client.post(REGISTER, json={"request": {"producer": "p"}}, headers=app_token)
    refused(reply, 503, "KAFKA_UNAVAILABLE")
    assert int(reply.headers["retry-after"]) > 0
    publisher.fail_after = None
    good(
        await client.post(REGISTER, json={"request": {"producer": "p"}}, headers=app_token), "analytics.device-register"
    )
    assert len(publisher.rows) == 1


async def test_registrations_are_counted_by_outcome(
    client: httpx.AsyncClient, app_token: dict[str, str], stored_devices: FakeDevices
) -> None:
    from midstream.metrics import DEVICE_REGISTRATIONS

    outcomes = ("written", "unchanged", "refused", "unavailable")

    def counts() -> list[float]:
        return [DEVICE_REGISTRATIONS.labels(outcome)._value.get() for outcome in outcomes]

    before = counts()
    for body in (b'{"request":{}}', b'{"request":{}}', b"nonsense"):
        await client.post(REGISTER, content=body, headers=app_token)
    stored_devices.away = True
    await client.post(REGISTER, json={"request": {}}, headers=app_token)
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1, 1]


async def test_the_example_of_the_document_can_be_registered(
    client: httpx.AsyncClient, app_token: dict[str, str]
) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v3/device/register/{did}"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    reply = await client.post("/v3/device/register/device-1", json=example, headers=app_token)
    shown = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert reply.json() | {"ts": "", "params": {}} == shown | {"ts": "", "params": {}}
    assert set(reply.json()["params"]) == set(shown["params"])
