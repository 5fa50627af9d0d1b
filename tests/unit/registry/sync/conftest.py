"""The registry of jobs, in SQLite and in PostgreSQL, with a clock that is set."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from midstream.registry.sync.jobs import Jobs
from midstream.registry.sync.queue import Queue
from tests.support.registry import engine, settings

__all__ = ["engine", "settings"]


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.now

    def after(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(engine: Engine, clock: Clock) -> Jobs:
    return Jobs(engine, clock)


@pytest.fixture
def queue(engine: Engine, clock: Clock) -> Queue:
    return Queue(engine, clock)
