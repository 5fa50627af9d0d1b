"""``/v1/sync``, deletions, and what was erased."""

import gzip
import json
from collections.abc import Iterator

import httpx
import pytest

from midstream.erased import SUBKEY, ErasedKey
from midstream.registry.credentials import Credentials
from midstream.registry.engine import open_engine
from midstream.registry.keyfile import derive_key
from midstream.registry.sync import erased_cache
from midstream.registry.sync.erased import ErasedIds
from midstream.registry.sync.jobs import Jobs, Order
from midstream.registry.sync.queue import Outcome, Progress, Queue
from midstream.settings import Settings

from .conftest import FakePublisher

SYNC = "/api/data/v1/index/sync"
USER = "/v1/dimensions/user"


@pytest.fixture
def jobs(settings: Settings, credentials: Credentials) -> Jobs:
    return Jobs(open_engine(settings))


@pytest.fixture
def queue(settings: Settings, credentials: Credentials) -> Queue:
    return Queue(open_engine(settings))


class TestShow:
    async def test_each_state(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, queue: Queue
    ) -> None:
        job, _ = jobs.create(Order("sync", "user", ("u1", "u2"), {"full": True}))

        async def shown() -> dict[str, object]:
            reply = await client.get(f"/v1/sync/{job.id}", headers=operator)
            assert reply.status_code == 200
            said: dict[str, object] = reply.json()
            return said

        said = await shown()
        assert set(said) == {
            *("id", "kind", "type", "status", "phase", "objects", "progress", "changed", "attempts"),
            *("created_at", "started_at", "ended_at", "resweep_at"),
        }
        assert (said["id"], said["kind"], said["type"]) == (job.id, "sync", "user")
        assert (said["status"], said["objects"], said["changed"]) == ("queued", 2, {})
        queue.claim("a", 30)
        queue.renew(job.id, "a", 30, Progress("correct", 1, 2, 2, {"dimensions": 1}, 4.0))
        said = await shown()
        assert (said["status"], said["phase"]) == ("running", "correct")
        assert said["progress"] == {"done": 1, "total": 2, "per_s": 0.2}
        assert said["changed"] == {"dimensions": 1}
        jobs.cancel(job.id)
        assert (await shown())["cancel_requested"] is True
        queue.finish(job.id, "a", Outcome(2, {"dimensions": 1, "events": 7}, report={"a": 1}, resweep_s=330))
        said = await shown()
        assert (said["status"], said["changed"], said["report"]) == ("done", {"dimensions": 1, "events": 7}, {"a": 1})
        assert said["ended_at"]
        assert said["resweep_at"]
        assert "cancel_requested" not in said
        assert "error" not in said

    async def test_a_failed_one_says_why(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, queue: Queue
    ) -> None:
        job, _ = jobs.create(Order("sync", "user", None))
        queue.claim("a", 30)
        queue.fail(job.id, "a", "why")
        said = (await client.get(f"/v1/sync/{job.id}", headers=operator)).json()
        assert (said["status"], said["error"]) == ("failed", "why")

    @pytest.mark.parametrize("id_", ["x", "00000000-0000-4000-8000-000000000000", "%00", "%FF", "a" * 5_000])
    async def test_an_unknown_one_is_404(self, client: httpx.AsyncClient, operator: dict[str, str], id_: str) -> None:
        for reply in (
            await client.get(f"/v1/sync/{id_}", headers=operator),
            await client.post(f"/v1/sync/{id_}/cancel", headers=operator),
        ):
            assert (reply.status_code, reply.json()["code"]) == (404, "NOT_FOUND")

    async def test_the_list_page_by_page(self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs) -> None:
        made = [jobs.create(Order("sync", "user", None))[0].id for _ in range(5)]
        found: list[str] = []
        after = ""
        while True:
            reply = await client.get(f"/v1/sync?limit=2{after}", headers=operator)
            assert reply.status_code == 200
            found += [job["id"] for job in reply.json()["jobs"]]
            if reply.json()["next"] is None:
                break
            after = f"&after={reply.json()['next']}"
        assert found == made[::-1]
        jobs.cancel(made[0])
        reply = await client.get("/v1/sync?status=cancelled", headers=operator)
        assert [job["id"] for job in reply.json()["jobs"]] == [made[0]]

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "status=x"])
    async def test_a_query_that_cannot_be(
        self, client: httpx.AsyncClient, operator: dict[str, str], query: str
    ) -> None:
        reply = await client.get(f"/v1/sync?{query}", headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_REQUEST")

    async def test_after_none_there_is(self, client: httpx.AsyncClient, operator: dict[str, str]) -> None:
        for after in ("x", "%00"):
            reply = await client.get(f"/v1/sync?after={after}", headers=operator)
            assert (reply.status_code, reply.json()["code"]) == (404, "NOT_FOUND")


class TestCancel:
    async def test_twice_is_as_once_and_too_late_is_409(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, queue: Queue
    ) -> None:
        job, _ = jobs.create(Order("sync", "user", None))
        for _ in range(2):
            reply = await client.post(f"/v1/sync/{job.id}/cancel", headers=operator)
            assert (reply.status_code, reply.json()["status"]) == (202, "cancelled")
        job, _ = jobs.create(Order("sync", "user", None))
        queue.claim("a", 30)
        queue.finish(job.id, "a", Outcome(0, {}))
        reply = await client.post(f"/v1/sync/{job.id}/cancel", headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (409, "ENDED")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/sync"), ("GET", "/v1/sync/x"), ("POST", "/v1/sync/x/cancel"), ("DELETE", f"{USER}/u1")],
)
async def test_only_operators(
    client: httpx.AsyncClient, app_token: dict[str, str], jobs: Jobs, method: str, path: str
) -> None:
    assert (await client.request(method, path, headers=app_token)).status_code == 403
    assert (await client.request(method, path)).status_code == 401
    assert not jobs.page(limit=1)


class TestDelete:
    @pytest.mark.parametrize(
        ("query", "kind"), [("", "delete"), ("?erase=false", "delete"), ("?erase=true", "erase"), ("?erase=1", "erase")]
    )
    async def test_is_a_job(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, query: str, kind: str
    ) -> None:
        reply = await client.delete(f"{USER}/a%2Fb%20c{query}", headers=operator)
        assert reply.status_code == 202
        assert set(reply.json()) == {"node_id"}
        job = jobs.get(reply.json()["node_id"])
        assert job is not None
        assert (job.kind, job.type, jobs.ids_of(job.id)) == (kind, "user", ["a/b c"])

    async def test_the_same_request_is_the_same_job_of_the_same_object(
        self, client: httpx.AsyncClient, operator: dict[str, str]
    ) -> None:
        headers = operator | {"x-request-id": "always"}

        async def delete(path: str) -> str:
            return str((await client.delete(path, headers=headers)).json()["node_id"])

        first = await delete(f"{USER}/u1")
        assert await delete(f"{USER}/u1") == first
        assert len({first, await delete(f"{USER}/u2"), await delete(f"{USER}/u1?erase=true")}) == 3

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("/v1/dimensions/User/u1", 404, "UNKNOWN_TYPE"),
            ("/v1/dimensions/erased/u1", 404, "UNKNOWN_TYPE"),
            ("/v1/dimensions/content/u1?erase=true", 400, "INVALID_REQUEST"),
            (f"{USER}/", 400, "INVALID_ID"),
            (f"{USER}/%00", 400, "INVALID_ID"),
            (f"{USER}/u1?erase=perhaps", 400, "INVALID_REQUEST"),
        ],
    )
    async def test_what_cannot_be(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, path: str, status: int, code: str
    ) -> None:
        reply = await client.delete(path, headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (status, code)
        assert not jobs.page(limit=1)


@pytest.fixture
def erased(settings: Settings, credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> Iterator[ErasedIds]:
    """The user ``gone`` was erased."""
    monkeypatch.setattr(erased_cache, "_EVERY_S", 0.0)
    engine = open_engine(settings)
    ids = ErasedIds(engine)
    ids.add(ErasedKey(derive_key(settings, SUBKEY)).digest("user", "gone"), "user", "job")
    yield ids
    engine.dispose()


class TestErased:
    async def test_a_put_is_refused(
        self, client: httpx.AsyncClient, operator: dict[str, str], publisher: FakePublisher, erased: ErasedIds
    ) -> None:
        reply = await client.put(f"{USER}/gone", json={"a": 1}, headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (409, "ERASED")
        assert "gone" not in reply.text
        assert not publisher.rows
        assert (await client.put("/v1/dimensions/device/gone", json={}, headers=operator)).status_code == 200

    @pytest.mark.parametrize("compress", [False, True])
    async def test_a_line_of_many_is_refused(
        self,
        client: httpx.AsyncClient,
        operator: dict[str, str],
        publisher: FakePublisher,
        erased: ErasedIds,
        compress: bool,
    ) -> None:
        lines = [{"id": "a", "attributes": {}}, {"id": "gone", "attributes": {}}, 7, {"id": "b", "attributes": {}}]
        content = "\n".join(map(json.dumps, lines)).encode()
        content = gzip.compress(content) if compress else content
        reply = (await client.post(USER, content=content, headers=operator)).json()
        assert (reply["accepted"], reply["refused"]) == (2, 2)
        assert [(error["line"], error["code"]) for error in reply["errors"]] == [(2, "ERASED"), (3, "INVALID_ROW")]
        assert [row.id for row in publisher.rows] == ["a", "b"]

    async def test_a_sync_names_it_no_more(
        self, client: httpx.AsyncClient, operator: dict[str, str], jobs: Jobs, erased: ErasedIds
    ) -> None:
        request = {"objectType": "user", "objectIds": ["a", "gone"], "operationType": "sync"}
        reply = (await client.post(SYNC, json={"request": request}, headers=operator)).json()
        assert jobs.ids_of(reply["result"]["node_id"]) == ["a"]
        assert reply["result"]["esSyncResponse"] == {"a": False, "gone": False}
        request = {"objectType": "user", "objectIds": ["gone"]}
        reply = (await client.post(SYNC, json={"request": request}, headers=operator)).json()
        assert jobs.ids_of(reply["result"]["node_id"]) == []  # of none, not of all

    async def test_it_is_not_deleted_but_erased_again(
        self, client: httpx.AsyncClient, operator: dict[str, str], erased: ErasedIds
    ) -> None:
        reply = await client.delete(f"{USER}/gone", headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (409, "ERASED")
        assert (await client.delete(f"{USER}/gone?erase=true", headers=operator)).status_code == 202

    async def test_what_is_erased_later_counts(
        self, client: httpx.AsyncClient, operator: dict[str, str], erased: ErasedIds, settings: Settings
    ) -> None:
        assert (await client.put(f"{USER}/u2", json={}, headers=operator)).status_code == 200
        erased.add(ErasedKey(derive_key(settings, SUBKEY)).digest("user", "u2"), "user", "job")
        assert (await client.put(f"{USER}/u2", json={}, headers=operator)).status_code == 409

    async def test_more_than_are_remembered_are_known_all_the_same(
        self,
        client: httpx.AsyncClient,
        operator: dict[str, str],
        erased: ErasedIds,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(erased_cache, "MAX_REMEMBERED", 2)
        key = ErasedKey(derive_key(settings, SUBKEY))
        for number in range(5):
            erased.add(key.digest("user", f"u{number}"), "user", "job")
        for id_ in ("gone", *(f"u{number}" for number in range(5))):
            assert (await client.put(f"{USER}/{id_}", json={}, headers=operator)).status_code == 409
        assert (await client.put(f"{USER}/u5", json={}, headers=operator)).status_code == 200

    async def test_without_a_registry_no_row_is_taken(
        self,
        client: httpx.AsyncClient,
        operator: dict[str, str],
        publisher: FakePublisher,
        settings: Settings,
        erased: ErasedIds,
    ) -> None:
        engine = open_engine(settings)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE erased RENAME TO away")
        engine.dispose()
        reply = await client.put(f"{USER}/u1", json={}, headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (503, "REGISTRY_UNAVAILABLE")
        reply = await client.post(USER, content=b'{"id":"a","attributes":{}}', headers=operator)
        assert (reply.status_code, reply.json()["code"]) == (503, "REGISTRY_UNAVAILABLE")
        assert reply.json()["accepted"] == 0
        assert not publisher.rows
