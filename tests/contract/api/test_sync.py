"""``POST /api/data/v1/index/sync``, to the field."""

import asyncio
import gzip
import json
import re
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest
from sqlalchemy import update

from midstream.dimensions import DimensionType
from midstream.registry.credentials import Credentials
from midstream.registry.engine import open_engine
from midstream.registry.sync import jobs as jobs_module
from midstream.registry.sync.jobs import Jobs
from midstream.registry.sync.queue import Claim, Outcome, Queue
from midstream.registry.sync.tables import SyncJob
from midstream.settings import Settings
from serve.services import Services
from tests.support.waiting import wait_until

from .conftest import FakeAlive

SYNC = "/api/data/v1/index/sync"
TYPES = ("user", "organisation", "location", "batch", "user_course", "content", "device")


def body(type_: Any = "user", **more: Any) -> dict[str, Any]:
    return {"params": {}, "request": {"objectType": type_, **more}}


@pytest.fixture
def jobs(settings: Settings, credentials: Credentials) -> Jobs:
    return Jobs(open_engine(settings))


@pytest.fixture
def queue(settings: Settings, credentials: Credentials) -> Queue:
    return Queue(open_engine(settings))


def is_refused(reply: httpx.Response, status: int, err: str) -> str:
    """Check a refusal, field by field; return its message."""
    said = reply.json()
    assert (reply.status_code, said["params"]["err"]) == (status, err)
    assert said["params"]["status"] == "FAILED"
    assert said["responseCode"] == ("SERVER_ERROR" if status >= 500 else "CLIENT_ERROR")
    assert said["result"] == {}
    assert (said["id"], said["ver"]) == ("api.data.sync", "v1")
    assert said["params"]["resmsgid"] == said["params"]["msgid"]
    message = said["params"]["errmsg"]
    assert isinstance(message, str)
    assert message
    return message


def claimed(queue: Queue) -> Claim:
    """Wait for a job, and take it."""
    return wait_until("there is a job", lambda: queue.claim("a", 30))


class TestReply:
    @pytest.mark.parametrize("type_", TYPES)
    async def test_a_sync_is_a_job(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, type_: str
    ) -> None:
        reply = await client.post(SYNC, json=body(type_, objectIds=["b", "a", "b"]), headers=operator)
        assert reply.status_code == 200
        said = reply.json()
        node_id = said["result"]["node_id"]
        message_id = said["params"]["resmsgid"]
        assert UUID(message_id)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d:\d{3}\+0000", said.pop("ts"))
        assert said == {
            "id": "api.data.sync",
            "ver": "v1",
            "params": {
                "resmsgid": message_id,
                "msgid": message_id,
                "err": None,
                "status": "SUCCESS",
                "errmsg": None,
            },
            "responseCode": "OK",
            "result": {"response": "SUCCESS", "node_id": node_id},
        }
        job = jobs.get(node_id)
        assert job is not None
        assert (job.kind, job.type, job.objects, job.status) == ("sync", type_, 2, "queued")
        assert jobs.ids_of(node_id) == ["b", "a"]

    def test_the_types_are_those_of_the_contract(self) -> None:
        assert set(TYPES) == set(DimensionType)

    @pytest.mark.parametrize("ids", [{}, {"objectIds": []}, {"objectIds": None}])
    async def test_no_ids_are_all(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, ids: dict[str, Any]
    ) -> None:
        reply = await client.post(SYNC, json=body(**ids), headers=operator)
        job = jobs.get(reply.json()["result"]["node_id"])
        assert job is not None
        assert job.is_for_all

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({"x-request-id": "r-1", "X-msgid": "m-1"}, "r-1"),
            ({"X-msgid": "m-1"}, "m-1"),
            ({"x-request-id": "", "X-msgid": "m-1"}, "m-1"),
        ],
    )
    async def test_the_message_id_comes_back(
        self, client: httpx.AsyncClient, operator: dict[str, str], headers: dict[str, str], expected: str
    ) -> None:
        for content in (json.dumps(body()), "{"):
            params = (await client.post(SYNC, content=content, headers=operator | headers)).json()["params"]
            assert (params["resmsgid"], params["msgid"]) == (expected, expected)

    async def test_what_is_documented_as_required_may_be_absent(
        self, client: httpx.AsyncClient, operator: dict[str, str]
    ) -> None:
        content = json.dumps({"request": {"objectType": "user"}})
        assert (await client.post(SYNC, content=content, headers=operator)).status_code == 200
        more = {"ts": "x", "X-Device-ID": "d", "content-type": "text/plain"}
        content = json.dumps({"params": "x", "request": {"objectType": "user", "operationType": None}, "more": 1})
        assert (await client.post(SYNC, content=content, headers=operator | more)).status_code == 200

    async def test_options(self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs) -> None:
        reply = await client.post(SYNC, json=body(full=True, force=False), headers=operator)
        job = jobs.get(reply.json()["result"]["node_id"])
        assert job is not None
        assert job.options == {"full": True}


class TestTheSameAgain:
    async def test_is_the_same_job(
        self, client: httpx.AsyncClient, operator: dict[str, str], credentials: Credentials, jobs: Jobs
    ) -> None:
        async def node_id(by: dict[str, str], **headers: str) -> str:
            reply = await client.post(SYNC, json=body(objectIds=["u1"]), headers=by | headers)
            assert reply.status_code == 200
            return str(reply.json()["result"]["node_id"])

        first = await node_id(operator, **{"X-msgid": "m-1"})
        assert await node_id(operator, **{"X-msgid": "m-1"}) == first
        assert await node_id(operator, **{"x-request-id": "m-1"}) == first
        another = {"authorization": f"Bearer {credentials.create('op2', role='operator').token}"}
        others = [
            await node_id(operator, **{"x-request-id": "m-2", "X-msgid": "m-1"}),
            await node_id(another, **{"X-msgid": "m-1"}),
            await node_id(operator),
            await node_id(operator),
        ]
        assert len({first, *others}) == 5
        assert len(jobs.page(limit=100)) == 5

    async def test_at_once_is_one_job(self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs) -> None:
        headers = operator | {"x-request-id": "r"}
        replies = await asyncio.gather(*(client.post(SYNC, json=body(), headers=headers) for _ in range(8)))
        assert [reply.status_code for reply in replies] == [200] * 8
        assert len({reply.json()["result"]["node_id"] for reply in replies}) == 1
        assert len(jobs.page(limit=100)) == 1

    async def test_of_the_same_objects_are_two_jobs(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs
    ) -> None:
        content = body(objectIds=["u1"])
        replies = await asyncio.gather(*(client.post(SYNC, json=content, headers=operator) for _ in range(2)))
        assert len({reply.json()["result"]["node_id"] for reply in replies}) == 2


class TestForms:
    async def test_urlencoded(self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs) -> None:
        ids = ["a b", "é&=+%", '"\\']
        fields = {"request": json.dumps({"objectType": "content", "objectIds": ids}), "params": "{}"}
        reply = await client.post(SYNC, data=fields, headers=operator)
        assert reply.status_code == 200, reply.text
        assert jobs.ids_of(reply.json()["result"]["node_id"]) == ids

    @pytest.mark.parametrize("filename", [None, "request.json"])
    async def test_multipart(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, filename: str | None
    ) -> None:
        ids = ["a b", "é\r\n--x", "z"]
        text = json.dumps({"objectType": "device", "objectIds": ids}, ensure_ascii=False).encode()
        parts = {"params": (None, b"{}"), "request": (filename, text, "application/json"), "more": ("f", b"\xff")}
        reply = await client.post(SYNC, files=parts, headers=operator)
        assert reply.status_code == 200, reply.text
        assert jobs.ids_of(reply.json()["result"]["node_id"]) == ids

    @pytest.mark.parametrize(
        ("text", "err"),
        [
            ("{", "UOS_0061"),
            ("", "UOS_0061"),
            ("[]", "UOS_0028"),
            ("{}", "UOS_0003"),
            ('{"objectType":"User"}', "UOS_0072"),
            ('{"objectType":"user","objectIds":"u"}', "UOS_0028"),
        ],
    )
    async def test_what_is_wrong_in_a_form(
        self, client: httpx.AsyncClient, operator: dict[str, str], text: str, err: str
    ) -> None:
        is_refused(await client.post(SYNC, data={"request": text}, headers=operator), 400, err)
        is_refused(await client.post(SYNC, files={"request": (None, text)}, headers=operator), 400, err)

    async def test_a_form_without_a_request(self, client: httpx.AsyncClient, operator: dict[str, str]) -> None:
        for sent in ({"data": {"params": "{}"}}, {"files": {"params": (None, "{}")}}):
            is_refused(await client.post(SYNC, headers=operator, **sent), 400, "UOS_0003")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            ("multipart/form-data", b"--x\r\n"),
            ("multipart/form-data; boundary=x", b""),
            ("multipart/form-data; boundary=x", b"nonsense"),
            ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--x--\r\n"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"objectType":"user"}\r\n',
            ),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 40 + b"--x--\r\n",
            ),
            ("application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(40))),
            ("application/x-www-form-urlencoded", b"request=%FF%FE"),
            ("application/x-www-form-urlencoded", b"request=\xff"),
        ],
    )
    async def test_what_is_no_form(
        self, client: httpx.AsyncClient, operator: dict[str, str], kind: str, content: bytes
    ) -> None:
        reply = await client.post(SYNC, content=content, headers=operator | {"content-type": kind})
        is_refused(reply, 400, "UOS_0061")

    async def test_a_hundred_thousand_ids_in_a_form(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs
    ) -> None:
        ids = [f"user-{number}" for number in range(100_000)]
        text = json.dumps({"objectType": "user", "objectIds": ids})
        headers = operator | {"content-type": "application/x-www-form-urlencoded"}
        reply = await client.post(SYNC, content=urlencode({"request": text}), headers=headers)
        assert reply.status_code == 200, reply.text
        job = jobs.get(reply.json()["result"]["node_id"])
        assert job is not None
        assert job.objects == 100_000


class TestBadInput:
    @pytest.mark.parametrize(
        ("content", "err", "place"),
        [
            ("{", "UOS_0061", "not JSON"),
            ("", "UOS_0061", "not JSON"),
            ("nonsense", "UOS_0061", "not JSON"),
            (b'{"request":"\xff"}', "UOS_0061", "UTF-8"),
            ('{"request":{"objectType":NaN}}', "UOS_0061", "not JSON"),
            ("[" * 100_000, "UOS_0061", "nested too deeply"),
            ("[]", "UOS_0028", "no object"),
            ("null", "UOS_0028", "no object"),
            ('"user"', "UOS_0028", "no object"),
            ('{"request":null}', "UOS_0028", "request is no object"),
            ('{"request":[]}', "UOS_0028", "request is no object"),
            ('{"request":"{}"}', "UOS_0028", "request is no object"),
            ("{}", "UOS_0003", "objectType"),
            ('{"params":{}}', "UOS_0003", "objectType"),
            ('{"request":{}}', "UOS_0003", "objectType"),
            ('{"request":{"objectType":null}}', "UOS_0003", "objectType"),
            ('{"request":{"objectType":""}}', "UOS_0003", "objectType"),
            ('{"request":{"objecttype":"user"}}', "UOS_0003", "objectType"),
            ('{"request":{"objectType":["user"]}}', "UOS_0028", "objectType is no text"),
            ('{"request":{"objectType":{}}}', "UOS_0028", "objectType is no text"),
            ('{"request":{"objectType":7}}', "UOS_0028", "objectType is no text"),
            ('{"request":{"objectType":true}}', "UOS_0028", "objectType is no text"),
        ],
    )
    async def test_what_cannot_be(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, content: str, err: str, place: str
    ) -> None:
        message = is_refused(await client.post(SYNC, content=content, headers=operator), 400, err)
        assert place in message
        assert not jobs.page(limit=1)

    @pytest.mark.parametrize("type_", ["User", "USER", "users", " user", "user ", "erased", "usеr", "\x00", "u" * 1000])
    async def test_an_unknown_type(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, type_: str
    ) -> None:
        reply = await client.post(SYNC, json=body(type_), headers=operator)
        assert is_refused(reply, 400, "UOS_0072") == "Invalid Object Type."
        assert not jobs.page(limit=1)

    @pytest.mark.parametrize(
        ("ids", "place"),
        [
            ("u1", "request.objectIds is no list"),
            ({}, "request.objectIds is no list"),
            ({"0": "u1"}, "request.objectIds is no list"),
            (1, "request.objectIds is no list"),
            (False, "request.objectIds is no list"),
            ([1], "request.objectIds[0] is no text"),
            (["a", None], "request.objectIds[1] is no text"),
            (["a", ["b"]], "request.objectIds[1] is no text"),
            (["a", "b", {}], "request.objectIds[2] is no text"),
            (["a", ""], "request.objectIds[1]"),
            (["a", "x" * 1025], "request.objectIds[1]"),
            (["é" * 513], "request.objectIds[0]"),
            (["a", "b", "c\0"], "request.objectIds[2]"),
            (["\ud800"], "not JSON"),
        ],
    )
    async def test_ids_that_cannot_be(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, ids: Any, place: str
    ) -> None:
        reply = await client.post(SYNC, content=json.dumps(body(objectIds=ids)), headers=operator)
        # JSON itself has no lone surrogate
        message = is_refused(reply, 400, "UOS_0061" if ids == ["\ud800"] else "UOS_0028")
        assert place in message
        assert not jobs.page(limit=1)

    @pytest.mark.parametrize("operation", ["async", "SYNC", 1, ["sync"], {}, False])
    async def test_an_operation_that_is_none(
        self, client: httpx.AsyncClient, operator: dict[str, str], operation: Any
    ) -> None:
        reply = await client.post(SYNC, json=body(operationType=operation), headers=operator)
        assert "request.operationType" in is_refused(reply, 400, "UOS_0028")

    @pytest.mark.parametrize("name", ["full", "force"])
    async def test_an_option_that_is_none(self, client: httpx.AsyncClient, operator: dict[str, str], name: str) -> None:
        reply = await client.post(SYNC, json=body(**{name: "yes"}), headers=operator)
        assert f"request.{name}" in is_refused(reply, 400, "UOS_0028")

    async def test_as_many_ids_as_may_be_and_one_more(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs
    ) -> None:
        ids = [f"{number:040}" for number in range(100_000)]
        reply = await client.post(SYNC, json=body(objectIds=ids), headers=operator)
        assert reply.status_code == 200
        assert jobs.ids_of(reply.json()["result"]["node_id"]) == ids
        message = is_refused(
            await client.post(SYNC, json=body(objectIds=[*ids, "x"]), headers=operator), 400, "UOS_0028"
        )
        assert message == "request.objectIds has 100001 ids; at most 100000 are taken at once"

    async def test_a_hundred_thousand_times_the_same_id_is_one(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs
    ) -> None:
        reply = await client.post(SYNC, json=body(objectIds=["u1"] * 100_000), headers=operator)
        assert jobs.ids_of(reply.json()["result"]["node_id"]) == ["u1"]

    @pytest.mark.parametrize("compress", [False, True])
    async def test_a_body_that_is_too_large(
        self, client: httpx.AsyncClient, operator: dict[str, str], settings: Settings, compress: bool
    ) -> None:
        content = json.dumps(body(objectIds=["x"])).encode() + b" " * settings.sync_max_bytes
        content = gzip.compress(content) if compress else content
        is_refused(await client.post(SYNC, content=content, headers=operator), 413, "BODY_TOO_LARGE")

    async def test_gzip_is_taken_and_broken_gzip_is_not(
        self, client: httpx.AsyncClient, operator: dict[str, str]
    ) -> None:
        content = gzip.compress(json.dumps(body()).encode())
        assert (await client.post(SYNC, content=content, headers=operator)).status_code == 200
        is_refused(await client.post(SYNC, content=content[:-1], headers=operator), 400, "INVALID_GZIP")
        headers = operator | {"content-encoding": "br"}
        is_refused(await client.post(SYNC, content=b"x", headers=headers), 415, "UNSUPPORTED_ENCODING")

    async def test_other_methods_and_paths_have_the_envelope_too(self, client: httpx.AsyncClient) -> None:
        is_refused(await client.get(SYNC), 405, "METHOD_NOT_ALLOWED")
        is_refused(await client.post(f"{SYNC}/x"), 404, "NOT_FOUND")


class TestWhoMay:
    @pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Basic eDp5", "Bearer a.b.c"])
    async def test_nobody_else(
        self, client: httpx.AsyncClient, credentials: Credentials, jobs: Jobs, authorization: str
    ) -> None:
        reply = await client.post(SYNC, content=b"{", headers={"authorization": authorization})
        is_refused(reply, 401, "UNAUTHORIZED")
        assert reply.json()["message"] == "Unauthorized"
        assert reply.headers["www-authenticate"] == "Bearer"
        assert not jobs.page(limit=1)

    async def test_no_app(self, client: httpx.AsyncClient, app_token: dict[str, str], jobs: Jobs) -> None:
        is_refused(await client.post(SYNC, json=body(), headers=app_token), 403, "FORBIDDEN")
        assert not jobs.page(limit=1)


class TestAway:
    async def test_without_a_registry_nothing_is_begun(
        self, client: httpx.AsyncClient, operator: dict[str, str], services: Services, jobs: Jobs, settings: Settings
    ) -> None:
        assert (await client.post(SYNC, json=body(), headers=operator)).status_code == 200
        engine = open_engine(settings)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE sync_jobs RENAME TO away")
        reply = await client.post(SYNC, json=body(), headers=operator)
        is_refused(reply, 500, "SERVER_ERROR")
        assert int(reply.headers["retry-after"]) > 0
        assert "sync_jobs" not in reply.text
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO sync_jobs")
        engine.dispose()
        assert len(jobs.page(limit=9)) == 1

    async def test_no_more_wait_than_may(
        self, client: httpx.AsyncClient, operator: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs_module, "MAX_WAITING", 1)
        assert (await client.post(SYNC, json=body(), headers=operator)).status_code == 200
        reply = await client.post(SYNC, json=body(), headers=operator)
        is_refused(reply, 503, "SERVER_ERROR")
        assert int(reply.headers["retry-after"]) > 0


class TestWaits:
    """``operationType: "sync"``."""

    ASKED = body(objectIds=["u1", "u2", "u1"], operationType="sync")

    async def test_until_the_job_has_ended(
        self, client: httpx.AsyncClient, operator: dict[str, str], queue: Queue
    ) -> None:
        asking = asyncio.create_task(client.post(SYNC, json=self.ASKED, headers=operator))
        claim = await asyncio.to_thread(claimed, queue)
        assert not asking.done()
        queue.finish(claim.job.id, "a", Outcome(2, {}, {"u1": True, "u2": False}))
        said = (await asking).json()
        assert said["result"] == {
            "response": "SUCCESS",
            "node_id": claim.job.id,
            "esSyncResponse": {"u1": True, "u2": False},
        }

    async def test_for_a_while_and_then_tells_what_clickhouse_has(
        self, client: httpx.AsyncClient, operator: dict[str, str], alive_objects: FakeAlive
    ) -> None:
        alive_objects.ids = {"u2", "u3"}
        said = (await client.post(SYNC, json=self.ASKED, headers=operator)).json()
        assert said["result"]["esSyncResponse"] == {"u1": False, "u2": True}
        alive_objects.away = True
        said = (await client.post(SYNC, json=self.ASKED, headers=operator)).json()
        assert said["result"]["esSyncResponse"] == {"u1": False, "u2": False}

    async def test_for_all_of_a_type_tells_of_none(self, client: httpx.AsyncClient, operator: dict[str, str]) -> None:
        said = (await client.post(SYNC, json=body(operationType="sync"), headers=operator)).json()
        assert said["result"]["esSyncResponse"] == {}

    @pytest.mark.parametrize("is_for_good", [True, False])
    async def test_a_job_that_failed_is_500_and_the_same_again_tells_of_it(
        self, client: httpx.AsyncClient, operator: dict[str, str], queue: Queue, jobs: Jobs, is_for_good: bool
    ) -> None:
        headers = operator | {"x-request-id": "r-1"}
        asking = asyncio.create_task(client.post(SYNC, json=self.ASKED, headers=headers))
        claim = await asyncio.to_thread(claimed, queue)
        if is_for_good:
            queue.fail(claim.job.id, "a", "SOURCE_CUT: half a line")
        else:
            queue.put_off(claim.job.id, "a", "SOURCE_CUT: half a line", is_attempt=True)
        message = is_refused(await asking, 500, "SERVER_ERROR")
        assert "SOURCE_CUT" in message
        assert claim.job.id in message
        is_refused(await client.post(SYNC, json=self.ASKED, headers=headers), 500, "SERVER_ERROR")
        assert len(jobs.page(limit=9)) == 1

    async def test_once_it_has_ended_not_at_all(
        self, client: httpx.AsyncClient, operator: dict[str, str], queue: Queue, settings: Settings
    ) -> None:
        headers = operator | {"x-request-id": "r-1"}
        await client.post(SYNC, json=self.ASKED, headers=headers)
        engine = open_engine(settings)
        with engine.begin() as connection:
            connection.execute(update(SyncJob).values(status="done", response={"u1": True}))
        engine.dispose()
        async with asyncio.timeout(0.4):
            said = (await client.post(SYNC, json=self.ASKED, headers=headers)).json()
        assert said["result"]["esSyncResponse"] == {"u1": True, "u2": False}
