import asyncio
import gzip
import json
import time
from typing import Any
from uuid import UUID

import jwt
import pytest

from ingest.replies import ErrorCode
from midstream.registry.credentials import Credentials, Issued
from midstream.settings import Settings

from .conftest import PATH, Post, check_form, serving
from .doubles import NOT_PUBLISHED, OUTCOME_UNKNOWN, MemoryPublisher

EVENT: dict[str, Any] = {"eid": "LOG", "mid": "LOG:1", "ets": 1_700_000_000_000, "ver": "3.0"}


def batch(*events: Any, **more: Any) -> dict[str, Any]:
    return {"id": "api.telemetry", "ver": "3.0", "events": list(events), **more}


class TestTokens:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    async def test_scheme_in_any_letter_case(self, post: Post, app_credential: Issued, scheme: str) -> None:
        assert (await post(batch(EVENT), {"Authorization": f"{scheme} {app_credential.token}"})).status_code == 200

    @pytest.mark.parametrize(
        "token",
        [None, "", "x", "a.b.c", jwt.encode({"iss": "app"}, "", algorithm="none"),
         jwt.encode({"iss": "app"}, "k" * 32), jwt.encode({"iss": "nobody"}, "k" * 32), jwt.encode({}, "k" * 32)],
    )  # fmt: skip
    async def test_bad_token_is_401(
        self, settings: Settings, publisher: MemoryPublisher, app_credential: Issued, token: str | None
    ) -> None:
        async with serving(settings, publisher) as client:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            reply = await client.post(PATH, json=batch(EVENT), headers=headers)
        assert reply.status_code == 401
        check_form(reply)
        assert reply.json()["message"] == "Unauthorized"
        assert reply.headers["www-authenticate"] == "Bearer"
        assert publisher.published == []

    async def test_expired_token_is_401(self, post: Post, app_credential: Issued) -> None:
        token = jwt.encode({"iss": "app", "exp": int(time.time()) - 10}, app_credential.secret)
        assert (await post(batch(EVENT), {"Authorization": f"Bearer {token}"})).status_code == 401

    async def test_revoked_token_is_401_within_a_second(self, post: Post, credentials: Credentials) -> None:
        issued = credentials.create("short-lived")
        headers = {"Authorization": f"Bearer {issued.token}"}
        assert (await post(batch(EVENT), headers)).status_code == 200
        credentials.revoke("short-lived")
        await asyncio.sleep(1)
        assert (await post(batch(EVENT), headers)).status_code == 401

    async def test_credential_of_another_channel_is_401(self, post: Post, credentials: Credentials) -> None:
        token = credentials.create("tied", channels=("one", "two")).token
        for channel, status in (("one", 200), ("two", 200), ("three", 401), ("", 200), ("ONE", 401)):
            headers = {"Authorization": f"Bearer {token}", "X-Channel-Id": channel}
            assert (await post(batch(EVENT), headers)).status_code == status

    async def test_registry_that_is_away_is_503(self, settings: Settings, app_credential: Issued) -> None:
        changed = settings.model_copy(update={"home": settings.home / "elsewhere"})
        async with serving(changed, MemoryPublisher(), app_credential.token) as client:
            reply = await client.post(PATH, json=batch(EVENT))
        assert reply.status_code == 503
        check_form(reply)
        assert reply.json()["params"]["err"] == "REGISTRY_UNAVAILABLE"

    async def test_token_is_checked_before_the_body_is_read(self, settings: Settings) -> None:
        async def body() -> Any:
            yield b"x"
            pytest.fail("the body was read")

        async with serving(settings, MemoryPublisher()) as client:
            assert (await client.post(PATH, content=body())).status_code == 401


class TestLimits:
    async def test_rate_limit_is_429_for_its_credential_only(
        self, settings: Settings, app_credential: Issued, credentials: Credentials
    ) -> None:
        other = credentials.create("other-rate").token
        changed = settings.model_copy(update={"rate_limit_per_s": 2.0})
        async with serving(changed, MemoryPublisher(), app_credential.token) as client:
            replies = [await client.post(PATH, json=batch(EVENT)) for _ in range(3)]
            assert [reply.status_code for reply in replies] == [200, 200, 429]
            check_form(replies[2])
            assert replies[2].headers["retry-after"] == "1"
            headers = {"Authorization": f"Bearer {other}"}
            assert (await client.post(PATH, json=batch(EVENT), headers=headers)).status_code == 200
            await asyncio.sleep(0.6)
            assert (await client.post(PATH, json=batch(EVENT))).status_code == 200

    async def test_no_rate_limit_by_default(self, post: Post) -> None:
        assert {(await post(batch())).status_code for _ in range(200)} == {200}

    async def test_full_collector_is_503_until_acknowledged(
        self, settings: Settings, publisher: MemoryPublisher, app_credential: Issued
    ) -> None:
        publisher.gate = asyncio.Event()
        changed = settings.model_copy(update={"max_in_flight_bytes": 1_000_000})
        body = json.dumps(batch({"x": "y" * 400_000})).encode()
        async with serving(changed, publisher, app_credential.token) as client:
            waiting = [asyncio.create_task(client.post(PATH, content=body)) for _ in range(2)]
            await asyncio.sleep(0.1)
            refused = await client.post(PATH, content=body)
            assert refused.status_code == 503
            check_form(refused)
            assert refused.json()["params"]["err"] == "OVERLOADED"
            publisher.gate.set()
            assert [reply.status_code for reply in await asyncio.gather(*waiting)] == [200, 200]
            assert (await client.post(PATH, content=body)).status_code == 200


class TestKafkaAway:
    """What a reply says; test_kafka_away.py has what becomes of the batch."""

    @pytest.mark.parametrize("fault", [None, NOT_PUBLISHED, OUTCOME_UNKNOWN])
    async def test_batch_is_accepted_and_names_its_receipt(
        self, post: Post, publisher: MemoryPublisher, fault: Exception | None
    ) -> None:
        publisher.ready = fault is OUTCOME_UNKNOWN
        publisher.fault = fault
        reply = await post(batch(EVENT))
        assert reply.status_code == 200
        assert UUID(reply.headers["x-batch-id"]).version == 7

    async def test_without_a_spool_nothing_is_taken_until_kafka_has_been_there(
        self, settings: Settings, app_credential: Issued
    ) -> None:
        publisher = MemoryPublisher(ready=False)
        async with serving(settings, publisher, app_credential.token) as client:
            reply = await client.post(PATH, json=batch(EVENT))
            check_form(reply)
            assert (reply.status_code, reply.json()["params"]["err"]) == (503, "KAFKA_UNAVAILABLE")
            assert "x-batch-id" not in reply.headers
            publisher.ready = True
            await asyncio.sleep(0.5)
            assert (await client.post(PATH, json=batch(EVENT))).status_code == 200

    @pytest.mark.parametrize(
        ("fault", "events", "code"),
        [
            (ZeroDivisionError("a bug"), 1, "INTERNAL_ERROR"),
            (None, 50_001, "BODY_TOO_LARGE"),
        ],
    )
    async def test_a_refused_batch_is_named_as_a_taken_one_is(
        self, post: Post, publisher: MemoryPublisher, fault: Exception | None, events: int, code: str
    ) -> None:
        publisher.fault = fault
        for params, msgid in (({"msgid": "m1"}, "m1"), ({}, "m2")):
            body = json.dumps({"params": params, "events": [0] * events}).encode()
            echoed = (await post(gzip.compress(body), {"X-msgid": "m2", "X-Request-Id": "r1"})).json()["params"]
            assert (echoed["err"], echoed["msgid"], echoed["resmsgid"]) == (code, msgid, "r1")

    async def test_fault_of_ours_is_one_500_and_the_next_is_served(
        self, post: Post, publisher: MemoryPublisher
    ) -> None:
        publisher.fault = ZeroDivisionError("a bug")
        reply = await post(batch(EVENT))
        assert (reply.status_code, reply.json()["params"]["err"]) == (500, "INTERNAL_ERROR")
        assert "bug" not in reply.text
        publisher.fault = None
        assert (await post(batch(EVENT))).status_code == 200


def test_each_error_code_says_what_it_means() -> None:
    assert len({code.value for code in ErrorCode}) == len(ErrorCode)
    for code in ErrorCode:
        assert code.value.message
        assert (code.value.retry_after_s > 0) == (code.value.status in (429, 500, 503))
