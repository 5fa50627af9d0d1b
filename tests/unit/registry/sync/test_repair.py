"""Repairs and jobs do not overlap."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from midstream.registry.sync.jobs import Jobs
from midstream.registry.sync.queue import Queue
from midstream.registry.sync.repair import RepairLease
from tests.unit.registry.sync.conftest import Clock
from tests.unit.registry.sync.test_queue import make


@pytest.fixture
def lease(engine: Engine, clock: Clock) -> RepairLease:
    return RepairLease(engine, clock)


def test_one_repairs_at_a_time(lease: RepairLease, clock: Clock) -> None:
    assert lease.take("a", 30)
    assert not lease.take("b", 30)
    clock.after(29)
    assert lease.renew("a", 30)
    clock.after(29)
    assert not lease.take("b", 30)
    clock.after(2)
    assert lease.take("b", 30)
    assert not lease.renew("a", 30)
    lease.give_back("a")  # is not its any more
    assert not lease.take("a", 30)
    lease.give_back("b")
    assert lease.take("a", 30)


def test_nobody_repairs_while_a_job_runs(lease: RepairLease, jobs: Jobs, queue: Queue, clock: Clock) -> None:
    make(jobs)
    assert queue.claim("a", 30) is not None
    assert not lease.take("a", 30)
    clock.after(31)
    assert lease.take("a", 30)


def test_no_job_is_begun_while_somebody_repairs(lease: RepairLease, jobs: Jobs, queue: Queue) -> None:
    make(jobs)
    assert lease.take("a", 30)
    assert queue.claim("b", 30) is None
    lease.give_back("a")
    assert queue.claim("b", 30) is not None
