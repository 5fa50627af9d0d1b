"""A runner with the registry's real queue in SQLite, and doubles for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.registry.sync.jobs import JobRow, Jobs, Order
from midstream.registry.sync.queue import Queue
from midstream.settings import Settings
from serve.jobs.runner import Pace, Runner
from serve.jobs.tools import Limits, Tools
from tests.unit.jobs.doubles import (
    Corrects,
    Erases,
    Follows,
    KnowsErased,
    Publisher,
    Sources,
    Watermarks,
    World,
)

PACE = Pace(poll_s=0.01, tell_s=0.02, lease_s=30, away_s=0.01)
LIMITS = Limits(visible_s=0.3, settle_s=0.3, heard_s=0, poll_s=0.01, resweep_s=300)
UNTIL_S = 20.0


class Clock:
    """The registry's; it runs, and can be set forward."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def after(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


@dataclass
class Frame:
    """Runners over one registry and one world."""

    engine: Engine
    clock: Clock
    world: World
    sources: Sources
    corrects: Corrects
    watermarks: Watermarks
    limits: Limits = LIMITS
    pace: Pace = PACE

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.engine, self.clock)

    def runner(self) -> Runner:
        queue = Queue(self.engine, self.clock)

        def tools(owner: str) -> Tools:
            def answer(job_id: str, response: object) -> None:
                self.world.answers[job_id] = dict(response)  # type: ignore[call-overload]
                queue.answer(job_id, owner, response)  # type: ignore[arg-type]

            return Tools(
                sources=self.sources,
                watermarks=self.watermarks,
                publisher=Publisher(self.world),
                rows=self.world.rows,
                follows=Follows(self.world),
                corrects=self.corrects,
                erases=Erases(self.world),
                erased=KnowsErased(self.world),
                answer=answer,
                limits=self.limits,
            )

        return Runner(self.jobs, queue, tools, pace=self.pace)

    def create(self, *ids: str, kind: str = "sync", **options: bool) -> str:
        order = Order(kind, "user", ids or None, options)  # type: ignore[arg-type]
        return self.jobs.create(order)[0].id

    def get(self, job_id: str) -> JobRow:
        found = self.jobs.get(job_id)
        assert found is not None
        return found

    async def until(self, job_id: str, is_so: Callable[[JobRow], bool], runner: Runner | None = None) -> JobRow:
        """Run until a job is so."""
        runner = runner or self.runner()
        running = asyncio.create_task(runner.run())
        try:
            async with asyncio.timeout(UNTIL_S):
                while not is_so(job := await asyncio.to_thread(self.get, job_id)):
                    if running.done():
                        running.result()
                    await asyncio.sleep(0.01)
        finally:
            runner.stop()
            async with asyncio.timeout(UNTIL_S):
                await asyncio.gather(running, return_exceptions=True)
        return self.get(job_id) if not running.exception() else job

    async def end(self, job_id: str) -> JobRow:
        """Run until a job has ended."""
        return await self.until(job_id, lambda job: job.is_ended)


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Frame]:
    monkeypatch.delenv("MIDSTREAM_REGISTRY", raising=False)
    settings = Settings(home=tmp_path, registry="")
    migrate(settings)
    engine = open_engine(settings)
    world = World()
    yield Frame(engine, Clock(), world, Sources(world), Corrects(world), Watermarks(world))
    engine.dispose()
