import base64
import gzip
import json
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest

from ingest.collector import Collector
from midstream.registry.credentials import Issued
from midstream.request_ids import current_request_id
from midstream.settings import Settings

from .conftest import PATH, Post, check_form, serving
from .doubles import MemoryPublisher

EVENT: dict[str, Any] = {"eid": "LOG", "mid": "LOG:1", "ets": 1_700_000_000_000, "ver": "3.0"}


def batch(*events: Any, **more: Any) -> dict[str, Any]:
    return {"id": "api.telemetry", "ver": "3.0", "events": list(events), **more}


async def test_accepted_batch_is_published_as_it_came(post: Post, publisher: MemoryPublisher) -> None:
    body = json.dumps(batch(EVENT, EVENT), indent=2).encode()
    before = int(time.time() * 1000)
    reply = await post(body)
    assert reply.status_code == 200
    ((receipt, published, key),) = publisher.published
    assert published == body
    assert key == b""
    assert (receipt.events, receipt.bytes, receipt.credential, receipt.sequence) == (2, len(body), "app", 0)
    assert before <= receipt.received_at_ms <= int(time.time() * 1000)
    assert receipt.source == "http"
    assert reply.headers["x-batch-id"] == receipt.batch_id
    assert UUID(receipt.batch_id).version == 7
    assert reply.json()["params"]["resmsgid"] == receipt.batch_id
    moment = datetime.fromisoformat(reply.json()["ts"])
    assert abs((moment - datetime.now(UTC)).total_seconds()) < 10
    assert abs(reply.json()["ets"] - before) < 10_000


async def test_a_request_whose_client_has_gone_has_no_id_any_more(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    async def receive() -> dict[str, Any]:
        assert current_request_id() == "r-1"
        return {"type": "http.disconnect"}

    async def send(_message: dict[str, Any]) -> None:
        raise AssertionError("nobody is there")

    collector = Collector(settings, publisher)
    await collector.startup()
    headers = [(b"authorization", f"Bearer {app_credential.token}".encode()), (b"x-request-id", b"r-1")]
    await collector({"type": "http", "method": "POST", "path": PATH, "headers": headers}, receive, send)
    assert current_request_id() == ""
    await collector.shutdown()


@pytest.mark.parametrize("path", [PATH, "/v1/telemetry"])
async def test_both_paths(post: Post, path: str) -> None:
    assert (await post(batch(EVENT), path=path)).status_code == 200


async def test_the_request_has_an_id_and_a_well_formed_one_is_kept(post: Post, publisher: MemoryPublisher) -> None:
    reply = await post(batch(EVENT))
    assert reply.headers["x-request-id"] == reply.headers["x-batch-id"] == publisher.published[0][0].batch_id
    reply = await post(batch(EVENT), {"X-Request-Id": "gateway-17"})
    assert reply.headers["x-request-id"] == "gateway-17"
    assert UUID(reply.headers["x-batch-id"]).version == 7
    replies = [await post(body, {"X-Request-Id": "not well formed"}) for body in (batch(EVENT), b"no")]
    assert [reply.status_code for reply in replies] == [200, 400]
    assert len({UUID(reply.headers["x-request-id"]) for reply in replies}) == 2
    assert [reply.json()["params"]["resmsgid"] for reply in replies] == ["not well formed"] * 2
    assert len({receipt.batch_id for receipt, _, _ in publisher.published}) == 3


async def test_no_events_is_200(post: Post, publisher: MemoryPublisher) -> None:
    assert (await post(batch())).status_code == 200
    assert publisher.published[0][0].events == 0


async def test_gzip_is_published_as_it_came(post: Post, publisher: MemoryPublisher) -> None:
    body = gzip.compress(json.dumps(batch(EVENT)).encode())
    for headers in ({"Content-Encoding": "gzip"}, {}, {"Content-Encoding": "identity"}, {"Content-Encoding": "x-gzip"}):
        assert (await post(body, headers)).status_code == 200
    assert [published for _, published, _ in publisher.published] == [body] * 4
    assert publisher.published[0][0].bytes == len(body)


async def test_plain_body_that_claims_to_be_gzip_is_read(post: Post, publisher: MemoryPublisher) -> None:
    assert (await post(batch(EVENT), {"Content-Encoding": "gzip"})).status_code == 200
    assert publisher.published[0][0].events == 1


async def test_sequence_has_no_gap_over_refused_batches(post: Post, publisher: MemoryPublisher) -> None:
    for body in (batch(EVENT), b"no json", batch(), b"{}", batch(EVENT)):
        await post(body)
    assert [receipt.sequence for receipt, _, _ in publisher.published] == [0, 1, 2]
    assert len({receipt.batch_id for receipt, _, _ in publisher.published}) == 3


class TestFacts:
    async def test_device_of_the_body_wins(self, post: Post, publisher: MemoryPublisher) -> None:
        await post(batch(EVENT, params={"did": "student"}), {"X-Device-Id": "admin"})
        await post(batch(EVENT, params={"did": ""}), {"X-Device-Id": "admin"})
        await post(batch(EVENT), {"X-Device-Id": "admin"})
        assert [(receipt.did, key) for receipt, _, key in publisher.published] == [
            ("student", b"student"),
            ("admin", b"admin"),
            ("admin", b"admin"),
        ]

    async def test_headers_are_kept(self, post: Post, publisher: MemoryPublisher) -> None:
        user = jwt.encode({"sub": "f:1:user"}, "x" * 32)
        headers = {"X-Channel-Id": "ch", "X-App-Id": "app.id", "X-Authenticated-User-Token": user}
        await post(batch(EVENT, params={"msgid": "m1"}, ets=1_700_000_000_123), headers)
        receipt = publisher.published[0][0]
        assert (receipt.channel, receipt.app, receipt.user, receipt.msgid) == ("ch", "app.id", "f:1:user", "m1")
        assert receipt.sent_at_ms == 1_700_000_000_123

    @pytest.mark.parametrize(
        ("body_msgid", "headers", "expected"),
        [
            ("m1", {"X-msgid": "m2", "X-Request-Id": "r1"}, ("m1", "r1")),
            (None, {"X-msgid": "m2", "X-Request-Id": "r1"}, ("m2", "r1")),
            (None, {}, ("", None)),
        ],
    )
    async def test_ids_are_echoed(
        self, post: Post, body_msgid: str | None, headers: dict[str, str], expected: tuple[str, str | None]
    ) -> None:
        params = {} if body_msgid is None else {"msgid": body_msgid}
        reply = await post(batch(EVENT, params=params), headers)
        echoed = reply.json()["params"]
        assert echoed["msgid"] == expected[0]
        assert echoed["resmsgid"] == (expected[1] or reply.headers["x-batch-id"])

    async def test_ids_are_echoed_in_errors_too(self, post: Post) -> None:
        echoed = (await post(b"no", {"X-msgid": "m2", "X-Request-Id": "r1"})).json()["params"]
        assert (echoed["msgid"], echoed["resmsgid"]) == ("m2", "r1")

    @pytest.mark.parametrize(
        "token",
        [b"", b"a", b"..", b"a.b.c", b"a.!!!.c", b"a." + base64.urlsafe_b64encode(b"[" * 4000) + b".c",
         b"a." + base64.urlsafe_b64encode(b'{"sub":1}') + b".c",
         b"a." + base64.urlsafe_b64encode(b'{"sub":null}') + b".c",
         b"a." + base64.urlsafe_b64encode(b"[]") + b".c", b"a." + base64.urlsafe_b64encode(b'{"sub":"\xff"}') + b".c",
         b"\xff\xfe.\xff.\xff", b"x" * 100_000],
    )  # fmt: skip
    async def test_user_token_never_fails_a_batch(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, token: bytes
    ) -> None:
        headers = {b"X-Authenticated-User-Token": token}
        reply = await client.post(PATH, json=batch(EVENT), headers=headers)  # type: ignore[arg-type]
        assert reply.status_code == 200
        assert publisher.published[0][0].user == ""

    @pytest.mark.parametrize(
        "value", [b"\xff\xfe\x00", b"x" * 50_000, "जिला".encode(), b"a\tb", b"", b"   ", b"'\"\\{}"]
    )
    async def test_any_header_bytes_are_safe(
        self, client: httpx.AsyncClient, publisher: MemoryPublisher, value: bytes
    ) -> None:
        names = (b"X-Device-Id", b"X-Channel-Id", b"X-App-Id", b"X-msgid", b"X-Request-Id")
        reply = await client.post(PATH, json=batch(EVENT), headers=[(name, value) for name in names])
        assert reply.status_code == 200
        check_form(reply)
        receipt = publisher.published[0][0]
        for fact in (receipt.did, receipt.channel, receipt.app, receipt.msgid):
            assert len(fact) <= 512
            fact.encode()

    @pytest.mark.parametrize("did", ["\\ud800", "x" * 50_000, "\\u0000", "\\ud83d\\ude00"])
    async def test_any_device_in_the_body_is_safe(self, post: Post, publisher: MemoryPublisher, did: str) -> None:
        reply = await post(b'{"params":{"did":"%s","msgid":"%s"},"events":[]}' % (did.encode(), did.encode()))
        assert reply.status_code == 200
        assert len(publisher.published[0][0].did) <= 512

    @pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, "", "x", [None], {"did": {}}])
    async def test_wrong_types_around_the_events_do_not_matter(
        self, post: Post, publisher: MemoryPublisher, value: Any
    ) -> None:
        for name in ("id", "ver", "ts", "ets", "params", "other"):
            assert (await post(batch(EVENT, **{name: value}))).status_code == 200
        for name in ("did", "key", "msgid", "requesterId"):
            assert (await post(batch(EVENT, params={name: value}))).status_code == 200
        assert {receipt.events for receipt, _, _ in publisher.published} == {1}


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [b"", b" ", b"no json", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b'{"events":null}', b'{"events":{}}',
         b'{"events":"x"}', b'{"events":1}', b'{"event":[]}', b'{"events":[}', b'{"events":[', b'{"events":[{}]',
         b"eid=LOG&mid=1", b"\xff\xfe{\x00}\x00", b"\x00" * 100, b"[" * 100_000, b'{"a":' * 100_000, b'"' * 999],
    )  # fmt: skip
    async def test_what_is_no_batch_is_400(self, post: Post, publisher: MemoryPublisher, body: bytes) -> None:
        reply = await post(body)
        assert reply.status_code == 400
        assert reply.json()["params"]["err"] == "INVALID_BATCH"
        assert publisher.published == []

    @pytest.mark.parametrize(
        "event",
        [
            b'{"mid":"deep","edata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
            b"[" * 10_000 + b"]" * 10_000,
            b'{"mid":"\\ud800"}',
            b'{"mid":"a","mid":"b"}',
            b'{"mid":"nan","ets":NaN}',
            b'{"mid":"inf","ets":-Infinity}',
            b'{"mid":"big","ets":99999999999999999999999999999999}',
            b'{"mid":"exp","ets":1e9999}',
            b'{"mid":"\xff\xfe"}',
            b'{"mid":"large","x":"' + b"x" * 900_000 + b'"}',
            b"null",
            b"1",
            b'"text"',
            b"[]",
            b"{}",
            b'{"eid":null,"ets":null,"ver":null,"mid":null,"actor":null,"context":null,"object":null,"edata":null,"tags":null}',
        ],
        ids=["deep", "deep-array", "surrogate", "duplicate", "nan", "infinity", "2^63", "1e9999", "utf8", "large",
             "null",
             "number", "string", "array", "empty", "nulls"],
    )  # fmt: skip
    async def test_one_bad_event_never_fails_its_batch(
        self, post: Post, publisher: MemoryPublisher, event: bytes
    ) -> None:
        good = json.dumps(EVENT).encode()
        reply = await post(b'{"id":"api.telemetry","events":[' + good + b"," + event + b"," + good + b"]}")
        assert reply.status_code == 200
        assert publisher.published[0][0].events == 3

    async def test_two_megabytes_in_one_event(self, post: Post, publisher: MemoryPublisher) -> None:
        body = json.dumps(batch(EVENT, {"mid": "2", "x": "y" * 2_000_000})).encode()
        assert (await post(body)).status_code == 413
        assert (await post(gzip.compress(body))).status_code == 200
        assert publisher.published[0][0].events == 2

    @pytest.mark.parametrize("cut", [2, 10, 30, -1])
    async def test_truncated_gzip_is_400(self, post: Post, cut: int) -> None:
        reply = await post(gzip.compress(json.dumps(batch(EVENT)).encode())[:cut], {"Content-Encoding": "gzip"})
        assert reply.status_code == 400
        assert reply.json()["params"]["err"] == "INVALID_GZIP"

    async def test_gzip_bomb_is_413(self, post: Post) -> None:
        bomb = gzip.compress(b"\0" * 500_000_000, 9)
        assert len(bomb) < 1_000_000
        began = time.process_time()
        reply = await post(bomb, {"Content-Encoding": "gzip"})
        assert reply.status_code == 413
        assert time.process_time() - began < 1.0

    async def test_millions_of_empty_elements_are_413(self, post: Post) -> None:
        body = gzip.compress(b'{"events":[' + b"0," * 2_000_000 + b"0]}")
        assert len(body) < 20_000
        assert (await post(body)).status_code == 413
        assert (await post(gzip.compress(b'{"events":[' + b"0," * 49_999 + b"0]}"))).status_code == 200
        assert (await post(gzip.compress(b'{"events":[' + b"0," * 50_000 + b"0]}"))).status_code == 413

    async def test_inflated_limit_is_exact(self, settings: Settings, app_credential: Issued) -> None:
        body = json.dumps(batch({"x": "y" * 2000})).encode()
        for limit, expected in ((len(body), 200), (len(body) - 1, 413)):
            changed = settings.model_copy(update={"max_inflated_bytes": limit})
            async with serving(changed, MemoryPublisher(), app_credential.token) as client:
                assert (await client.post(PATH, content=gzip.compress(body))).status_code == expected

    async def test_size_limit_is_exact_announced_or_not(self, settings: Settings, app_credential: Issued) -> None:
        body = json.dumps(batch({"x": "y" * 2000})).encode()

        async def chunks() -> Any:
            for start in range(0, len(body), 100):
                yield body[start : start + 100]

        for limit, expected in ((len(body), 200), (len(body) - 1, 413)):
            publisher = MemoryPublisher()
            changed = settings.model_copy(update={"max_body_bytes": limit})
            async with serving(changed, publisher, app_credential.token) as client:
                announced = await client.post(PATH, content=body)
                chunked = await client.post(PATH, content=chunks())
                assert (announced.status_code, chunked.status_code) == (expected, expected)
                check_form(announced)
                assert [published for _, published, _ in publisher.published] == ([body] * 2 if expected == 200 else [])

    @pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, br", "compress", "gzip;q=1"])
    async def test_encoding_that_cannot_be_read_is_415(self, post: Post, encoding: str) -> None:
        reply = await post(batch(EVENT), {"Content-Encoding": encoding})
        assert reply.status_code == 415
        assert reply.json()["params"]["err"] == "UNSUPPORTED_ENCODING"

    @pytest.mark.parametrize(
        "content_type",
        ["application/json", "application/json; charset=utf-8", 'Application/JSON; Charset="UTF-8"', "text/plain",
         "text/plain;charset=US-ASCII", "application/octet-stream", "application/gzip", "application/x-gzip",
         "application/x-www-form-urlencoded", "application/vnd.api+json", "text/json", "", ";", None],
    )  # fmt: skip
    async def test_content_types_that_are_read(self, client: httpx.AsyncClient, content_type: str | None) -> None:
        headers = {} if content_type is None else {"Content-Type": content_type}
        assert (await client.post(PATH, content=json.dumps(batch(EVENT)), headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        "content_type",
        ["multipart/form-data; boundary=x", "application/xml", "text/html", "image/png",
         "application/json; charset=utf-16",
         "text/plain; charset=ISO-8859-1", "application/msgpack", "json"],
    )  # fmt: skip
    async def test_other_content_types_are_415(self, post: Post, content_type: str) -> None:
        reply = await post(batch(EVENT), {"Content-Type": content_type})
        assert reply.status_code == 415
        assert reply.json()["params"]["err"] == "UNSUPPORTED_CONTENT_TYPE"


class TestMethodsAndBrowsers:
    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "BREW"])
    async def test_other_methods_are_405(self, client: httpx.AsyncClient, method: str) -> None:
        reply = await client.request(method, PATH)
        assert reply.status_code == 405
        assert reply.headers["allow"] == "POST, OPTIONS"
        if method != "HEAD":
            check_form(reply)

    async def test_preflight_allows_what_clients_send(self, client: httpx.AsyncClient) -> None:
        wanted = "authorization,content-type,content-encoding,x-device-id,x-channel-id,x-app-id,x-msgid,x-request-id"
        headers = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
        }
        del client.headers["authorization"]  # a browser sends none with a preflight
        reply = await client.options(PATH, headers=headers)
        assert (reply.status_code, reply.content) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["access-control-allow-methods"] == "POST"
        allowed = {name.strip().lower() for name in reply.headers["access-control-allow-headers"].split(",")}
        assert set(wanted.split(",")) <= allowed
        assert "x-authenticated-user-token" in allowed

    async def test_replies_can_be_read_by_a_browser(self, post: Post) -> None:
        for body, token in ((batch(EVENT), True), (b"no", True), (batch(EVENT), False)):
            headers = {"Origin": "https://app.example"} | ({} if token else {"Authorization": "Bearer x"})
            reply = await post(body, headers)
            assert reply.headers["access-control-allow-origin"] == "*"
            assert reply.headers["access-control-expose-headers"] == "X-Batch-Id, X-Request-Id, Retry-After"

    async def test_only_the_origins_of_the_setting(self, settings: Settings, app_credential: Issued) -> None:
        changed = settings.model_copy(update={"cors_origins": ("https://one.example", "https://two.example")})
        async with serving(changed, MemoryPublisher(), app_credential.token) as client:
            for origin, allowed in (("https://two.example", True), ("https://three.example", False), ("null", False)):
                for method in ("OPTIONS", "POST"):
                    reply = await client.request(method, PATH, json=batch(EVENT), headers={"Origin": origin})
                    assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
                    assert reply.headers["vary"] == "Origin"

    async def test_no_cross_origin_headers_for_others(self, post: Post) -> None:
        reply = await post(batch(EVENT))
        assert not [name for name in reply.headers if name.startswith("access-control")]
