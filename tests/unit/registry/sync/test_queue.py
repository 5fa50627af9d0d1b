"""The queue: one job at a time in all, nothing lost when a process dies, nothing that is begun for ever."""

from __future__ import annotations

import threading
from bisect import bisect_left
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from midstream.registry.sync.jobs import JobRow, Jobs, Order
from midstream.registry.sync.queue import (
    BACK_OFF,
    BACK_OFF_MAX,
    MAX_ATTEMPTS,
    MAX_WAIT,
    REMEMBERED,
    Claim,
    Held,
    Outcome,
    Progress,
    Queue,
)
from midstream.registry.sync.tables import SyncJob

from .conftest import Clock

LEASE_S = 30.0
SOME = Order("sync", "user", ("u1",))


def make(jobs: Jobs) -> str:
    return jobs.create(SOME)[0].id


def claim(queue: Queue, owner: str = "a") -> Claim:
    found = queue.claim(owner, LEASE_S)
    assert found is not None
    return found


def get(jobs: Jobs, job_id: str) -> JobRow:
    found = jobs.get(job_id)
    assert found is not None
    return found


class TestClaim:
    def test_the_oldest_first_and_one_at_a_time(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        assert not queue.is_any_due()
        assert queue.claim("a", LEASE_S) is None
        first = make(jobs)
        clock.after(1)
        second = make(jobs)
        assert queue.is_any_due()
        found = claim(queue)
        assert (found.job.id, found.is_resweep, found.job.status, found.job.attempts) == (first, False, "running", 1)
        assert found.job.started_at == clock.now
        assert queue.claim("b", LEASE_S) is None
        assert queue.claim("a", LEASE_S) is None
        assert queue.finish(first, "a", Outcome(1, {}))
        assert claim(queue, "b").job.id == second

    def test_many_processes_get_one_job(self, jobs: Jobs, queue: Queue) -> None:
        for _ in range(4):
            make(jobs)
        found: list[Claim | None] = []
        barrier = threading.Barrier(4)

        def take(owner: str) -> None:
            barrier.wait()
            found.append(queue.claim(owner, LEASE_S))

        threads = [threading.Thread(target=take, args=(str(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(found) == 4
        assert len([one for one in found if one is not None]) == 1

    def test_another_takes_over_when_the_lease_is_over(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job_id = make(jobs)
        began = clock.now
        claim(queue)
        queue.renew(job_id, "a", LEASE_S, Progress("correct", 3, 9, 9, {"dimensions": 2}, 1.5))
        clock.after(LEASE_S - 1)
        assert queue.claim("b", LEASE_S) is None
        clock.after(1)
        taken = claim(queue, "b").job
        assert (taken.id, taken.attempts, taken.started_at) == (job_id, 2, began)
        assert (taken.phase, taken.done, taken.total, taken.changed) == ("correct", 3, 9, {"dimensions": 2})
        assert taken.per_s == 2.0
        # whoever had it changes nothing any more
        assert queue.renew(job_id, "a", LEASE_S, Progress("x", 0, 0, 0, {})) is Held.LOST
        assert not queue.finish(job_id, "a", Outcome(1, {}))
        assert not queue.fail(job_id, "a", "x")
        assert not queue.cancel(job_id, "a")
        assert not queue.release(job_id, "a")
        assert queue.put_off(job_id, "a", "x", is_attempt=True) is None
        assert get(jobs, job_id).phase == "correct"
        assert queue.renew(job_id, "b", LEASE_S) is Held.OURS

    def test_what_was_left_comes_before_what_waits(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        left = make(jobs)
        claim(queue)
        make(jobs)
        clock.after(LEASE_S)
        assert claim(queue, "b").job.id == left

    def test_what_ends_each_process_is_given_up(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job_id = make(jobs)
        for _ in range(MAX_ATTEMPTS):
            assert claim(queue).job.id == job_id
            clock.after(LEASE_S)
        assert queue.claim("a", LEASE_S) is None
        job = get(jobs, job_id)
        assert (job.status, job.ended_at) == ("failed", clock.now)
        assert job.error == f"it was begun {MAX_ATTEMPTS} times and never came to its end"


class TestRenew:
    def test_the_lease_goes_on(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job_id = make(jobs)
        claim(queue)
        for _ in range(5):
            clock.after(LEASE_S - 1)
            assert queue.renew(job_id, "a", LEASE_S) is Held.OURS
            assert queue.claim("b", LEASE_S) is None

    def test_progress_is_shown(self, jobs: Jobs, queue: Queue) -> None:
        job_id = make(jobs)
        claim(queue)
        queue.renew(job_id, "a", LEASE_S, Progress("publish", 5, 10, 10, {"dimensions": 5}))
        job = get(jobs, job_id)
        assert (job.phase, job.done, job.total, job.objects, job.changed) == ("publish", 5, 10, 10, {"dimensions": 5})


class TestEnd:
    def test_well(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job_id = make(jobs)
        claim(queue)
        outcome = Outcome(2, {"dimensions": 1, "events": 5}, {"u1": True, "u2": False}, {"what": "done"}, ids=("p",))
        queue.renew(job_id, "a", LEASE_S, Progress("erase", 1, 6, 2, {}))
        assert queue.finish(job_id, "a", outcome)
        job = get(jobs, job_id)
        assert (job.status, job.ended_at, job.objects, job.attempts) == ("done", clock.now, 2, 0)
        assert (job.done, job.total) == (6, 6)
        assert (job.changed, job.report) == ({"dimensions": 1, "events": 5}, {"what": "done"})
        assert jobs.response_of(job_id) == {"u1": True, "u2": False}
        assert jobs.ids_of(job_id) == ["p"]
        assert not queue.is_any_due()

    def test_badly(self, jobs: Jobs, queue: Queue) -> None:
        job_id = make(jobs)
        claim(queue)
        assert queue.fail(job_id, "a", "why")
        assert (get(jobs, job_id).status, get(jobs, job_id).error) == ("failed", "why")
        assert not queue.is_any_due()

    def test_given_back_it_is_anothers_at_once_and_was_no_attempt(self, jobs: Jobs, queue: Queue) -> None:
        job_id = make(jobs)
        for _ in range(MAX_ATTEMPTS * 2):
            claim(queue)
            assert queue.release(job_id, "a")
        assert (get(jobs, job_id).status, get(jobs, job_id).attempts) == ("queued", 0)
        assert claim(queue, "b").job.attempts == 1


class TestPutOff:
    def test_an_attempt_that_failed_is_made_again_after_longer_and_longer(
        self, jobs: Jobs, queue: Queue, clock: Clock
    ) -> None:
        job_id = make(jobs)
        rest = BACK_OFF
        for _ in range(MAX_ATTEMPTS - 1):
            claim(queue)
            job = queue.put_off(job_id, "a", "source: no answer", is_attempt=True)
            assert job is not None
            assert (job.status, job.error) == ("queued", "source: no answer")
            clock.after(rest.total_seconds() - 1)
            assert queue.claim("a", LEASE_S) is None
            clock.after(1)
            rest *= 2
        assert claim(queue).job.error is None
        job = queue.put_off(job_id, "a", "source: no answer", is_attempt=True)
        assert job is not None
        assert job.status == "failed"
        assert job.error == f"source: no answer (given up after {MAX_ATTEMPTS} tries)"

    def test_others_come_meanwhile(self, jobs: Jobs, queue: Queue) -> None:
        job_id = make(jobs)
        claim(queue)
        queue.put_off(job_id, "a", "away", is_attempt=True)
        other = make(jobs)
        assert claim(queue).job.id == other

    def test_what_finds_a_part_away_waits_for_a_day(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job_id = make(jobs)
        made = clock.now
        tries = 0
        while True:
            claim(queue)
            tries += 1
            job = queue.put_off(job_id, "a", "Kafka is away", is_attempt=False)
            assert job is not None
            if job.status == "failed":
                break
            assert job.attempts == 0
            before = clock.now

            def is_due_after(seconds: int, since: datetime = before) -> bool:
                clock.now = since + timedelta(seconds=seconds)
                return queue.is_any_due()

            rest_s = bisect_left(range(int(BACK_OFF_MAX.total_seconds()) + 1), True, key=is_due_after)
            assert is_due_after(rest_s)
        assert MAX_WAIT < clock.now - made <= MAX_WAIT + BACK_OFF_MAX
        assert tries > 250

    def test_a_clock_that_was_set_back_does_no_harm(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        job_id = make(jobs)
        claim(queue)
        clock.after(-3_600)
        assert queue.put_off(job_id, "a", "away", is_attempt=False) is not None
        clock.after(5)
        assert claim(queue).job.id == job_id


class TestResweep:
    @pytest.fixture
    def job_id(self, jobs: Jobs, queue: Queue) -> str:
        job_id = make(jobs)
        claim(queue)
        queue.finish(job_id, "a", Outcome(1, {"events": 3}, {"u1": True}, resweep_s=330))
        return job_id

    def test_once_when_it_is_due(self, jobs: Jobs, queue: Queue, clock: Clock, job_id: str) -> None:
        ended = clock.now
        clock.after(329)
        assert queue.claim("b", LEASE_S) is None
        clock.after(1)
        assert queue.is_any_due()
        found = claim(queue, "b")
        assert (found.job.id, found.is_resweep, found.job.status) == (job_id, True, "done")
        assert not queue.is_any_due()
        make(jobs)
        assert queue.claim("c", LEASE_S) is None  # a resweep corrects, too
        assert queue.renew(job_id, "b", LEASE_S, Progress("resweep", 0, 1, 1, {"events": 4})) is Held.OURS
        assert queue.finish(job_id, "b", Outcome(1, {"events": 5}))
        job = get(jobs, job_id)
        assert (job.status, job.ended_at, job.changed, job.resweep_at) == ("done", ended, {"events": 5}, None)
        assert jobs.response_of(job_id) == {"u1": True}
        assert not claim(queue).is_resweep

    def test_it_is_another_s_when_its_process_dies(self, queue: Queue, clock: Clock, job_id: str) -> None:
        clock.after(330)
        claim(queue, "b")
        clock.after(LEASE_S)
        found = claim(queue, "c")
        assert (found.job.id, found.is_resweep) == (job_id, True)

    def test_given_back_it_is_another_s_at_once(self, jobs: Jobs, queue: Queue, clock: Clock, job_id: str) -> None:
        clock.after(330)
        claim(queue, "b")
        assert queue.release(job_id, "b")
        assert get(jobs, job_id).status == "done"
        assert claim(queue, "c").is_resweep

    def test_what_fails_again_and_again_is_left(self, jobs: Jobs, queue: Queue, clock: Clock, job_id: str) -> None:
        clock.after(330)
        for _ in range(MAX_ATTEMPTS):
            assert claim(queue).is_resweep
            assert not queue.fail(job_id, "a", "x")
            queue.put_off(job_id, "a", "away", is_attempt=True)
            clock.after(BACK_OFF_MAX.total_seconds())
        assert queue.claim("a", LEASE_S) is None
        job = get(jobs, job_id)
        assert (job.status, job.error, job.resweep_at) == ("done", None, None)

    def test_what_ends_each_process_is_left(self, jobs: Jobs, queue: Queue, clock: Clock, job_id: str) -> None:
        clock.after(330)
        for _ in range(MAX_ATTEMPTS):
            claim(queue)
            clock.after(LEASE_S)
        assert queue.claim("a", LEASE_S) is None
        assert (get(jobs, job_id).status, get(jobs, job_id).resweep_at) == ("done", None)

    def test_due_first_comes_first(self, jobs: Jobs, queue: Queue, clock: Clock, job_id: str) -> None:
        clock.after(329)
        other = make(jobs)
        clock.after(2)
        assert claim(queue).job.id == other


class TestPrune:
    def test_what_ended_long_ago_is_forgotten(self, jobs: Jobs, queue: Queue, clock: Clock) -> None:
        gone = make(jobs)
        claim(queue)
        queue.fail(gone, "a", "x")
        to_resweep = make(jobs)
        claim(queue)
        queue.finish(to_resweep, "a", Outcome(1, {}, resweep_s=10))
        waits = make(jobs)
        clock.after(REMEMBERED.total_seconds())
        assert queue.prune() == 0
        clock.after(1)
        assert queue.prune() == 1
        assert {job.id for job in jobs.page(limit=9)} == {to_resweep, waits}
        assert queue.prune() == 0


def test_how_many_wait(jobs: Jobs, queue: Queue) -> None:
    assert queue.count_waiting() == 0
    make(jobs)
    make(jobs)
    claim(queue)
    assert queue.count_waiting() == 1


def test_a_kind_of_a_newer_version_waits_for_it(queue: Queue, jobs: Jobs, engine: Engine, clock: Clock) -> None:
    """To take it for one of ours could erase somebody."""
    newer, ours = make(jobs), jobs.create(Order("sync", "content", ("c1",)))[0].id
    with engine.begin() as connection:
        connection.execute(update(SyncJob).where(SyncJob.id == newer).values(kind="merge"))
    assert claim(queue).job.id == ours
    assert queue.finish(ours, "a", Outcome(0, {}))
    for status in ("queued", "running", "done"):
        with engine.begin() as connection:
            values = {"status": status, "lease_until": clock.now, "resweep_at": clock.now, "attempts": MAX_ATTEMPTS}
            connection.execute(update(SyncJob).where(SyncJob.id == newer).values(**values))
        clock.after(1)
        assert not queue.is_any_due()
        assert queue.claim("b", LEASE_S) is None
        with engine.begin() as connection:
            row = connection.execute(select(SyncJob.status, SyncJob.attempts).where(SyncJob.id == newer)).one()
        assert tuple(row) == (status, MAX_ATTEMPTS)
