"""Jobs as those see them who ask: one for one request, shown as they are, cancelled at once or when it is safe."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from midstream.registry.sync import jobs as jobs_module
from midstream.registry.sync.errors import EndedError, NoJobError, TooManyJobsError
from midstream.registry.sync.jobs import JobRow, Jobs, Order
from midstream.registry.sync.queue import Held, Outcome, Queue

from .conftest import Clock

ALL = Order("sync", "user", None)
SOME = Order("sync", "user", ("u1", "é/2", 'q"\\'))
LEASE_S = 30.0


class TestCreate:
    def test_what_was_asked_for_is_read_again(self, jobs: Jobs, clock: Clock) -> None:
        job, made = jobs.create(replace(SOME, options={"full": True, "force": False}), "op", "r-1")
        assert made
        assert (job.kind, job.type, job.options, job.status, job.objects) == (
            "sync",
            "user",
            {"full": True},
            "queued",
            3,
        )
        assert (job.credential, job.request_id, job.created_at, job.changed) == ("op", "r-1", clock.now, {})
        assert (job.error, job.report, job.started_at, job.ended_at) == (None, None, None, None)
        assert not job.is_for_all
        assert jobs.get(job.id) == job
        assert jobs.ids_of(job.id) == list(SOME.ids or ())
        assert jobs.response_of(job.id) is None

    def test_all_of_a_type(self, jobs: Jobs) -> None:
        job, _ = jobs.create(ALL)
        assert job.is_for_all
        assert jobs.ids_of(job.id) is None

    def test_the_same_request_id_of_a_credential_is_the_same_job(self, jobs: Jobs, queue: Queue) -> None:
        job, _ = jobs.create(SOME, "op", "r-1")
        assert jobs.create(ALL, "op", "r-1") == (job, False)
        assert jobs.create(SOME, "another", "r-1")[1]
        assert jobs.create(SOME, "op", "r-2")[1]
        queue.claim("a", LEASE_S)
        queue.fail(job.id, "a", "why")
        again, made = jobs.create(SOME, "op", "r-1")
        assert (again.id, again.status, made) == (job.id, "failed", False)

    def test_without_a_request_id_each_is_another(self, jobs: Jobs) -> None:
        assert jobs.create(ALL)[0].id != jobs.create(ALL)[0].id

    def test_deletions_under_one_request_id_are_told_apart(self, jobs: Jobs) -> None:
        orders = [Order("delete", "user", ("u1",)), Order("delete", "user", ("u2",)), Order("erase", "user", ("u1",)),
                  Order("delete", "device", ("u1",)), SOME]  # fmt: skip
        made = [jobs.create(order, "op", "always")[0].id for order in orders]
        assert len(set(made)) == len(orders)
        assert [jobs.create(order, "op", "always")[0].id for order in orders] == made

    def test_a_request_id_of_any_length(self, jobs: Jobs) -> None:
        long = "é" * 5_000
        job, _ = jobs.create(ALL, "op", long)
        assert job.request_id == long[:256]
        assert jobs.create(ALL, "op", long)[0].id == job.id
        assert jobs.create(ALL, "op", f"{long}x")[0].id != job.id

    def test_many_at_once_of_one_request_are_one_job(self, jobs: Jobs) -> None:
        found: list[tuple[JobRow, bool]] = []
        barrier = threading.Barrier(4)

        def create() -> None:
            barrier.wait()
            found.append(jobs.create(SOME, "op", "r-1"))

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(found) == 4
        assert len({job.id for job, _ in found}) == 1
        assert [made for _, made in found].count(True) == 1

    def test_a_hundred_thousand_ids(self, jobs: Jobs) -> None:
        ids = tuple(f"user-{number:032}" for number in range(100_000))
        job, _ = jobs.create(replace(SOME, ids=ids))
        assert job.objects == 100_000
        assert jobs.ids_of(job.id) == list(ids)

    def test_no_more_wait_than_may(self, jobs: Jobs, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs_module, "MAX_WAITING", 2)
        first, _ = jobs.create(ALL, "op", "r-1")
        jobs.create(ALL)
        with pytest.raises(TooManyJobsError):
            jobs.create(ALL)
        assert jobs.create(ALL, "op", "r-1")[0].id == first.id
        queue.claim("a", LEASE_S)
        assert jobs.create(ALL)[1]


class TestPage:
    def test_the_newest_first_page_by_page(self, jobs: Jobs, clock: Clock) -> None:
        made = []
        for number in range(7):
            made.append(jobs.create(ALL)[0].id)
            clock.after(number % 2)  # some at the same moment
        found: list[str] = []
        while page := jobs.page(limit=2, after=found[-1] if found else None):
            found += [job.id for job in page]
        assert sorted(found) == sorted(made)
        moments = [job.created_at for job in jobs.page(limit=100)]
        assert moments == sorted(moments, reverse=True)

    def test_by_status(self, jobs: Jobs) -> None:
        one, other = jobs.create(ALL)[0], jobs.create(ALL)[0]
        jobs.cancel(one.id)
        assert [job.id for job in jobs.page(limit=9, status="cancelled")] == [one.id]
        assert [job.id for job in jobs.page(limit=9, status="queued")] == [other.id]

    def test_after_none_there_is(self, jobs: Jobs) -> None:
        with pytest.raises(NoJobError):
            jobs.page(limit=1, after="x")

    def test_bounded(self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs_module, "MAX_PAGE", 2)
        for _ in range(3):
            jobs.create(ALL)
        assert len(jobs.page(limit=1_000)) == 2


class TestCancel:
    def test_what_waits_ends_at_once(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job = jobs.cancel(jobs.create(SOME)[0].id)
        assert (job.status, job.ended_at) == ("cancelled", clock.now)
        assert queue.claim("a", LEASE_S) is None
        assert jobs.cancel(job.id) == job

    def test_what_runs_ends_when_it_is_safe(self, jobs: Jobs, queue: Queue) -> None:
        job, _ = jobs.create(SOME)
        queue.claim("a", LEASE_S)
        assert jobs.cancel(job.id).status == "running"
        assert queue.renew(job.id, "a", LEASE_S) is Held.CANCELLED
        assert queue.cancel(job.id, "a")
        ended = jobs.get(job.id)
        assert ended is not None
        assert ended.status == "cancelled"

    def test_what_runs_nowhere_any_more_ends_with_its_lease(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job, _ = jobs.create(SOME)
        queue.claim("a", LEASE_S)
        jobs.cancel(job.id)
        clock.after(LEASE_S + 1)
        assert queue.is_any_due()
        assert queue.claim("b", LEASE_S) is None
        ended = jobs.get(job.id)
        assert ended is not None
        assert ended.status == "cancelled"

    def test_what_was_put_off_ends_at_once(self, jobs: Jobs, queue: Queue) -> None:
        job, _ = jobs.create(SOME)
        queue.claim("a", LEASE_S)
        queue.put_off(job.id, "a", "away", is_attempt=False)
        assert jobs.cancel(job.id).status == "cancelled"

    def test_what_has_ended_does_not(self, jobs: Jobs, queue: Queue) -> None:
        job, _ = jobs.create(SOME)
        queue.claim("a", LEASE_S)
        queue.finish(job.id, "a", Outcome(3, {}))
        with pytest.raises(EndedError, match="done already"):
            jobs.cancel(job.id)

    def test_an_erasure_that_has_begun_goes_on(self, jobs: Jobs, queue: Queue) -> None:
        erase = Order("erase", "user", ("u1",))
        assert jobs.cancel(jobs.create(erase)[0].id).status == "cancelled"
        job, _ = jobs.create(erase)
        queue.claim("a", LEASE_S)
        for _ in range(2):
            with pytest.raises(EndedError, match="goes on to its end"):
                jobs.cancel(job.id)
            queue.put_off(job.id, "a", "away", is_attempt=False)
        assert queue.renew(job.id, "a", LEASE_S) is Held.LOST

    def test_what_is_not_there(self, jobs: Jobs) -> None:
        with pytest.raises(NoJobError):
            jobs.cancel("x")
        assert jobs.get("x") is None
        assert jobs.ids_of("x") is None


def test_nothing_of_a_job_is_lost_between_engines(engine: Engine, clock: Clock) -> None:
    job, _ = Jobs(engine, clock).create(SOME, "op", "r")
    assert Jobs(engine, clock).get(job.id) == job
