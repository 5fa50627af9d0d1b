"""What each kind of job does, in which order, and what it tells."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import MAX_VERSION, DimensionType
from midstream.registry.sync.jobs import Order
from midstream.registry.sync.queue import MAX_ATTEMPTS
from serve.jobs.errors import FailedError, TryAgainError
from serve.jobs.known import Known, changes, deletion
from tests.unit.jobs.conftest import Frame
from tests.unit.jobs.doubles import USER, World, row


def steps(world: World) -> list[str]:
    """Return what was done, without repetitions and queries."""
    found: list[str] = []
    for one in world.done:
        if one not in ("rows", "portion", "block", "has") and (not found or found[-1] != one):
            found.append(one)
    return found


class TestPushed:
    """A type without a source."""

    async def test_some_objects(self, frame: Frame) -> None:
        frame.world.put(row("u1"), row("u2", deleted=True))
        frame.world.events = 4
        job = await frame.end(frame.create("u1", "u2", "u3"))
        assert (job.status, job.objects, job.changed, job.error) == ("done", 3, {"events": 4}, None)
        assert frame.jobs.response_of(job.id) == {"u1": True, "u2": False, "u3": False}
        assert frame.corrects.asked == [(USER, ["u1", "u2", "u3"])]
        assert job.resweep_at is not None
        assert steps(frame.world) == [
            "ends dimensions",
            "behind midstream-dimensions",
            "ends telemetry.valid",
            "behind midstream-store",
            "correct",
        ]

    async def test_all_objects(self, frame: Frame) -> None:
        frame.world.put(row("u1"), row("u2"), row("u3", deleted=True))
        job = await frame.end(frame.create())
        assert (job.objects, job.changed) == (2, {"events": 0})
        assert frame.jobs.response_of(job.id) is None
        assert frame.corrects.asked == [(USER, None)]

    async def test_of_none_there_is_nothing_to_do(self, frame: Frame) -> None:
        from midstream.registry.sync.jobs import Order

        job = await frame.end(frame.jobs.create(Order("sync", "user", ()))[0].id)
        assert (job.status, job.objects) == ("done", 0)
        assert frame.world.done == []

    async def test_the_answer_is_told_before_the_events_are_corrected(self, frame: Frame) -> None:
        job_id = frame.create("u1")
        seen: list[object] = []
        frame.world.hooks["correct"] = lambda: seen.append(frame.jobs.response_of(job_id))
        await frame.end(job_id)
        assert seen == [{"u1": False}]


class TestWithASource:
    async def test_what_is_new_is_published_and_what_is_gone_deleted(self, frame: Frame) -> None:
        frame.world.put(row("same", '{"a":1}', 5), row("other", '{"a":1}', 5), row("gone", "{}", 5))
        frame.world.put(row("deleted", "{}", 5, deleted=True), row("older", '{"a":9}', 50))
        frame.sources.given = [
            row("same", '{"a":1}', 6),
            row("other", '{"a":2}', 6),
            row("new", '{"a":3}', 1),
            row("older", '{"a":1}', 49),
            row("deleted", "{}", 6, deleted=True),
        ]
        frame.sources.watermark = "version:6"
        job = await frame.end(frame.create())
        assert (job.status, job.changed, job.objects) == ("done", {"dimensions": 3, "events": 0}, 5)
        stored = {id_: (one.attributes, one.version, one.deleted) for (_, id_), one in frame.world.stored.items()}
        assert stored == {
            "same": ('{"a":1}', 5, False),
            "other": ('{"a":2}', 6, False),
            "new": ('{"a":3}', 1, False),
            "older": ('{"a":9}', 50, False),
            "gone": ("{}", 6, True),
            "deleted": ("{}", 5, True),
        }
        assert job.report is not None
        assert job.report["source"] == {
            "rows": 5, "refused": 0, "refusals": [], "gone": 1, "published": 3, "same": 2, "older": 1, "erased": 0,
            "withheld": 0, "whole": True,
        }  # fmt: skip
        assert frame.watermarks.noted == "version:6"
        assert not frame.sources.staged[0].is_open
        assert steps(frame.world) == [
            "read", "add_gone", "add", "finish", "note",
            "ends dimensions", "behind midstream-dimensions",
            "ends telemetry.valid", "behind midstream-store", "correct",
        ]  # fmt: skip

    async def test_twice_changes_nothing_the_second_time(self, frame: Frame) -> None:
        frame.sources.given = [row("u1", '{"a":1}'), row("u2")]
        assert (await frame.end(frame.create())).changed == {"dimensions": 2, "events": 0}
        assert (await frame.end(frame.create())).changed == {"events": 0}

    async def test_force_makes_the_source_right(self, frame: Frame) -> None:
        frame.world.put(row("u1", '{"a":9}', 50), row("gone", "{}", 7))
        frame.sources.given = [row("u1", '{"a":1}', 3)]
        await frame.end(frame.create())
        assert frame.world.stored[USER, "u1"].attributes == '{"a":9}'
        job = await frame.end(frame.create(force=True))
        assert job.changed["dimensions"] == 1
        assert (frame.world.stored[USER, "u1"].attributes, frame.world.stored[USER, "u1"].version) == ('{"a":1}', 51)

    async def test_only_what_changed_is_read_unless_all_is_asked_for(self, frame: Frame) -> None:
        frame.sources.given = [row("u1")]
        frame.sources.watermark = "version:9"
        await frame.end(frame.create())
        frame.sources.whole = False
        await frame.end(frame.create())
        await frame.end(frame.create(full=True))
        await frame.end(frame.create("u1"))
        assert frame.sources.asked == [(None, None), (None, "version:9"), (None, None), (["u1"], None)]
        assert frame.world.count("add_gone") == 1  # what does not come among changes is not gone
        assert frame.world.count("note") == 3  # a sync of some objects says nothing of the others

    async def test_some_objects_and_one_that_it_does_not_have(self, frame: Frame) -> None:
        frame.world.put(row("u2", "{}", 3), row("u3", "{}", 3))
        frame.sources.given = [row("u1"), row("u9")]
        job = await frame.end(frame.create("u1", "u2"))
        assert frame.jobs.response_of(job.id) == {"u1": True, "u2": False}
        assert frame.world.stored[USER, "u2"].deleted
        assert not frame.world.stored[USER, "u3"].deleted
        assert (USER, "u9") not in frame.world.stored

    async def test_what_was_pushed_while_it_was_read_is_not_deleted(self, frame: Frame) -> None:
        frame.sources.given = [row("u1")]
        frame.world.put(replace_updated("u2", 2_000))
        await frame.end(frame.create())
        assert not frame.world.stored[USER, "u2"].deleted

    async def test_what_was_erased_is_not_taken(self, frame: Frame) -> None:
        await frame.end(frame.create("gone", kind="erase"))
        frame.sources.given = [row("u1"), row("gone")]
        job = await frame.end(frame.create())
        assert {id_ for type_, id_ in frame.world.stored if type_ == USER} == {"u1"}
        assert job.report is not None
        assert job.report["source"]["erased"] == 1

    @pytest.mark.parametrize("where", ["read", "add_gone"])
    async def test_a_source_that_somebody_has_to_put_right_fails_the_job(self, frame: Frame, where: str) -> None:
        frame.world.put(row("u1"))
        frame.sources.given = [row("u2")]
        frame.world.fails[where] = [FailedError("SOURCE_REFUSED: 403")]
        job = await frame.end(frame.create())
        assert (job.status, job.error, job.changed) == ("failed", "SOURCE_REFUSED: 403", {})
        assert set(frame.world.stored) == {(USER, "u1")}
        assert frame.corrects.asked == []
        assert all(not one.is_open for one in frame.sources.staged)
        assert frame.watermarks.noted is None

    async def test_a_source_whose_trouble_may_pass_is_read_again(self, frame: Frame) -> None:
        frame.sources.given = [row("u1")]
        frame.world.fails["read"] = [TryAgainError("SOURCE_CUT: half a line") for _ in range(MAX_ATTEMPTS - 1)]
        job_id = frame.create()
        for _ in range(MAX_ATTEMPTS - 1):
            job = await frame.until(job_id, lambda job: job.status == "queued" and job.error is not None)
            assert job.error == "SOURCE_CUT: half a line"
            assert frame.world.stored == {}
            frame.clock.after(300)
            with frame.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE sync_jobs SET error = NULL")
        job = await frame.end(job_id)
        assert (job.status, job.changed) == ("done", {"dimensions": 1, "events": 0})


def replace_updated(id_: str, at_ms: int):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(row(id_), updated_at_ms=at_ms)


class TestChanges:
    KNOWN = Known(5, False, "99914B932BD37A50B983C5E7C90AE93B")  # of {}

    @pytest.mark.parametrize(
        ("given", "known", "force", "published"),
        [
            (row("a", "{}", 1), None, False, 1),
            (row("a", "{}", 1, deleted=True), None, False, 1),
            (row("a", "{}", 9), KNOWN, False, None),
            (row("a", "{}", 9), KNOWN, True, None),
            (row("a", '{"b":1}', 6), KNOWN, False, 6),
            (row("a", '{"b":1}', 5), KNOWN, False, 6),
            (row("a", '{"b":1}', 4), KNOWN, False, None),
            (row("a", '{"b":1}', 4), KNOWN, True, 6),
            (row("a", "{}", 6, deleted=True), KNOWN, False, 6),
            (row("a", "{}", 4, deleted=True), KNOWN, False, None),
            (row("a", "{}", 6), KNOWN._replace(deleted=True), False, 6),
            (row("a", "{}", 6, deleted=True), KNOWN._replace(deleted=True, md5="x"), False, None),
            (row("a", '{"b":1}', MAX_VERSION), KNOWN._replace(version=MAX_VERSION), True, None),
        ],
    )
    def test_what_counts(self, given, known, force, published) -> None:  # type: ignore[no-untyped-def]
        found = changes([given], {} if known is None else {"a": known}, force=force)
        assert [one.version for one in found.rows] == ([] if published is None else [published])
        assert len(found.rows) + found.same + found.older == 1
        assert all(
            (one.id, one.attributes, one.deleted) == ("a", given.attributes, given.deleted) for one in found.rows
        )

    def test_a_tombstone_is_above_what_is_known(self) -> None:
        assert deletion(USER, "a", None, 7) is None
        assert deletion(USER, "a", Known(5, True, ""), 7) is None
        for known, at_ms, version in ((5, 7, 7), (9, 7, 10), (MAX_VERSION, 7, MAX_VERSION)):
            found = deletion(DimensionType.USER, "a", Known(known, False, ""), at_ms)
            assert found is not None
            assert (found.version, found.deleted, found.attributes) == (version, True, "{}")


class TestDelete:
    async def test_the_row_goes_and_then_its_copies(self, frame: Frame) -> None:
        frame.world.put(row("u1", '{"a":1}', 2**60))
        frame.world.events = 3
        job = await frame.end(frame.create("u1", kind="delete"))
        assert (job.status, job.objects, job.changed) == ("done", 1, {"dimensions": 1, "events": 3})
        assert frame.world.stored[USER, "u1"].deleted
        assert frame.world.stored[USER, "u1"].version == 2**60 + 1
        assert frame.jobs.response_of(job.id) == {"u1": False}
        assert frame.corrects.asked == [(USER, ("u1",))]
        assert steps(frame.world)[:3] == ["ends dimensions", "behind midstream-dimensions", "publish"]

    async def test_what_is_not_there_is_no_row(self, frame: Frame) -> None:
        job = await frame.end(frame.create("u1", kind="delete"))
        assert (job.status, job.changed) == ("done", {"events": 0})
        assert frame.world.count("publish") == 0


class TestErase:
    async def test_it_is_known_before_and_named_no_more_after(self, frame: Frame) -> None:
        job = await frame.end(frame.create("secret-person", kind="erase"))
        assert (job.status, job.changed, job.resweep_at) == ("done", {"events": 5, "rejects": 1}, None)
        assert steps(frame.world) == [
            "erased.add", "publish", "forget secret-person",
            "ends dimensions", "behind midstream-dimensions", "ends telemetry.valid", "behind midstream-store",
            "erase", "erased.forget",
        ]  # fmt: skip
        (name,) = frame.jobs.ids_of(job.id) or ()
        assert job.report == {"id": name}
        assert name.startswith("erased-")
        with frame.engine.connect() as connection:
            whole = str(connection.exec_driver_sql("SELECT * FROM sync_jobs").all())
        assert "secret-person" not in whole

    async def test_only_a_user_is(self, frame: Frame) -> None:
        order = Order("erase", "content", ("c1",))
        job = await frame.end(frame.jobs.create(order)[0].id)
        assert (job.status, job.error) == ("failed", "a content cannot be erased: only users can")
        assert not frame.world.erased  # it may be pushed as before
        assert frame.world.count("publish") == 0

    async def test_nothing_is_erased_while_store_may_still_store_the_id(self, frame: Frame) -> None:
        frame.world.behind["midstream-store"] = 7
        frame.world.put(row("u1"))
        job_id = frame.create("u1", kind="erase")
        job = await frame.until(job_id, lambda job: job.status == "queued" and job.error is not None)
        assert "`store` has not stored in 0.3 s" in str(job.error)
        assert frame.world.count("erase") == 0
        assert frame.world.stored[USER, "u1"].deleted
        frame.world.behind["midstream-store"] = 0
        frame.clock.after(10)
        assert (await frame.end(job_id)).status == "done"


class TestWaits:
    async def test_until_clickhouse_has_the_rows(self, frame: Frame) -> None:
        frame.world.behind["midstream-dimensions"] = 3
        job_id = frame.create("u1")

        async def catch_up() -> None:
            while frame.world.count("behind midstream-dimensions") < 3:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
            assert frame.corrects.asked == []
            frame.world.behind["midstream-dimensions"] = 0

        job, _ = await asyncio.gather(frame.end(job_id), catch_up())
        assert job.status == "done"

    async def test_a_store_that_is_away_has_the_job_wait(self, frame: Frame) -> None:
        frame.world.behind["midstream-dimensions"] = 3
        job_id = frame.create("u1")
        for _ in range(2):
            job = await frame.until(job_id, lambda job: job.status == "queued" and job.error is not None)
            assert job.error == "ClickHouse lacks 3 rows after 0.3 s: is `store` running?"
            assert (job.attempts, frame.corrects.asked) == (0, [])
        frame.world.behind["midstream-dimensions"] = 0
        frame.clock.after(10)
        assert (await frame.end(job_id)).status == "done"

    async def test_a_store_that_is_behind_has_it_go_on_in_time(self, frame: Frame) -> None:
        frame.world.behind["midstream-store"] = 7
        job = await frame.end(frame.create("u1"))
        assert job.status == "done"
        assert job.resweep_at is not None
        assert frame.world.count("behind midstream-store") > 3

    async def test_store_has_to_reach_where_the_topic_ended_after_all_have_heard(self, frame: Frame) -> None:
        frame.limits = replace(frame.limits, heard_s=0.2)
        told: list[float] = []
        loop = asyncio.get_running_loop()
        frame.world.hooks["behind midstream-dimensions"] = lambda: told.append(loop.time())
        frame.world.hooks["ends telemetry.valid"] = lambda: told.append(loop.time())
        await frame.end(frame.create("u1"))
        assert told[1] - told[0] >= 0.2


class TestResweep:
    async def test_once_when_it_is_due(self, frame: Frame) -> None:
        frame.world.events = 2
        job_id = frame.create("u1")
        assert (await frame.end(job_id)).changed == {"events": 2}
        frame.clock.after(299)
        await frame.until(frame.create(), lambda job: job.is_ended)
        assert frame.corrects.asked == [(USER, ["u1"]), (USER, None)]
        frame.clock.after(2)
        job = await frame.until(job_id, lambda job: job.resweep_at is None)
        assert (job.status, job.changed) == ("done", {"events": 4})
        assert frame.corrects.asked[2] == (USER, ["u1"])
        assert frame.jobs.response_of(job_id) == {"u1": False}

    async def test_what_fails_does_not_undo_the_job(self, frame: Frame) -> None:
        job_id = frame.create("u1")
        await frame.end(job_id)
        frame.clock.after(301)
        frame.world.fails["correct"] = [ClickHouseError("no answer", None)]
        before = frame.get(job_id).resweep_at
        job = await frame.until(job_id, lambda job: job.resweep_at != before)
        assert (job.status, job.error) == ("done", None)
        frame.clock.after(301)
        assert (await frame.until(job_id, lambda job: job.resweep_at is None)).status == "done"
