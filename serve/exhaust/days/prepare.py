"""Days that are built before anybody reads them: for a manifest, a part of a download, an asynchronous request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from midstream.exhaust.manifest import DayFacts
from midstream.exhaust.variant import etag
from serve.exhaust.days.builder.job import Job
from serve.exhaust.days.follow import Days

MAX_PREPARING = 16
"""Requests whose days one process builds at once; each waits for a builder of the machine."""


class BusyError(Exception):
    """As many are built as may be."""


class Preparing:
    """What is being built. Belongs to one event loop."""

    def __init__(self, days: Days) -> None:
        self._days = days
        self._tasks: dict[str, asyncio.Task[list[DayFacts]]] = {}

    async def close(self) -> None:
        """Give up what is being built."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, jobs: Sequence[Job]) -> asyncio.Task[list[DayFacts]]:
        """Return the end of building these days: one for all who ask for the same. It raises NotBuiltError, and goes
        on when who asked leaves.

        Raises:
            BusyError: too many are being built.
        """
        name = etag([job.key for job in jobs])
        task = self._tasks.get(name)
        if task is None:
            if len(self._tasks) >= MAX_PREPARING:
                raise BusyError("too many days are being built; ask again")
            task = asyncio.create_task(self._build(tuple(jobs)), name="prepare-days")
            self._tasks[name] = task
            task.add_done_callback(lambda done: self._ended(name, done))
        return task

    async def _build(self, jobs: Sequence[Job]) -> list[DayFacts]:
        return [await self._days.ensure(job) for job in jobs]

    def _ended(self, name: str, task: asyncio.Task[list[DayFacts]]) -> None:
        self._tasks.pop(name, None)
        if not task.cancelled():
            task.exception()  # who waits for it hears of it; nobody may
