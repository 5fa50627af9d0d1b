"""Days' files while they are built: processes that build them, and readers that follow what is written.

A day that is there is read from its file. One that is not is built by a process of its own, and read while it grows;
whichever process of the api asks second follows the same file. When the last reader leaves, the builder ends, and the
query with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

from midstream.exhaust.manifest import DayFacts
from midstream.logs import get_logger
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryError
from midstream.registry.exhaust.revisions import Revisions
from midstream.settings import Settings
from serve.exhaust.days.builder import exits
from serve.exhaust.days.builder.job import Job
from serve.exhaust.days.pool import Builders
from serve.exhaust.days.shelf import PART, Built, Place

_log = get_logger(__name__)

READ_BYTES = 1 << 18
_LOOK_S = 0.05
_MAX_LOOK_S = 0.4
_TRIES = 3
_CHANGED = "Built again by other versions of the compression's libraries: other bytes, the same events."


class Cause(Enum):
    """Why a day is not there."""

    CLICKHOUSE = "ClickHouse does not answer"
    FAILED = "it could not be built; the server's log says why"
    CHANGED = "it is another than it was; ask again"


class NotBuiltError(Exception):
    """A day could not be built."""

    def __init__(self, job: Job, cause: Cause) -> None:
        super().__init__(f"the day {job.day}: {cause.value}")
        self.cause = cause


class Days:
    """The days' files of this machine. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.exhaust_folder
        self._processes = Builders(settings)
        self._registry = open_engine(settings)
        self._builders: dict[str, asyncio.Task[int]] = {}

    async def close(self) -> None:
        """End the builders that this process has begun; what others still wait for they begin anew."""
        builders = list(self._builders.values())
        for builder in builders:
            builder.cancel()
        await asyncio.gather(*builders, return_exceptions=True)
        await self._processes.close()
        self._registry.dispose()

    def place(self, job: Job) -> Place:
        """Return where a day's file is, or will be."""
        return Place(self._folder, job.key)

    async def built(self, job: Job) -> Built | None:
        """Return a day's file, which is to stay for a while; None when it is not there."""
        place = self.place(job)
        built = await asyncio.to_thread(place.built)
        if built is not None:
            place.touch()
        return built

    async def ensure(self, job: Job) -> DayFacts:
        """Return a day's facts once it is built.

        Raises:
            NotBuiltError: it cannot be.
        """
        async with self.follow(job) as following:
            return await following.facts()

    @asynccontextmanager
    async def follow(self, job: Job) -> AsyncIterator[Following]:
        """Follow a day's file from its beginning; it is built if it is not there, as long as somebody follows."""
        follower = _Follower(self, job)
        async with follower.waiting():
            yield Following(follower)

    async def _build(self, job: Job) -> int:
        code = await self._processes.run(job)
        if code != exits.CHANGED:
            return code
        # Its tag stands for bytes that nobody can make any more: the day gets another.
        try:
            await asyncio.to_thread(
                Revisions(self._registry).add, job.dataset, job.resource, job.day, job.day, _CHANGED
            )
        except RegistryError as error:
            _log.error("exhaust.change_not_noted", day=str(job.day), error=str(error))
            return exits.FAILED
        return code

    def begin(self, job: Job, place: Place) -> asyncio.Task[int]:
        """Return the end of this process's builder of a day, which is begun if there is none."""
        name = str(place.path(""))
        builder = self._builders.get(name)
        if builder is None:
            builder = asyncio.create_task(self._build(job), name="exhaust-builder")
            self._builders[name] = builder
            builder.add_done_callback(lambda _: self._builders.pop(name, None))
        return builder


class Following:
    """A day's file, read from its beginning."""

    def __init__(self, follower: _Follower) -> None:
        self._follower = follower

    async def begun(self, within_s: float) -> None:
        """Wait until something of the file is there, but no longer than that.

        Raises:
            NotBuiltError: it cannot be built.
        """
        await self._follower.until_begun(within_s)

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the file's bytes.

        Raises:
            NotBuiltError: it could not be built to its end; what was yielded is no file.
        """
        return self._follower.chunks()

    async def facts(self) -> DayFacts:
        """Return the file's facts once it is there.

        Raises:
            NotBuiltError: it cannot be built.
        """
        return (await self._follower.until_built()).facts


class _Follower:
    def __init__(self, days: Days, job: Job) -> None:
        self._days = days
        self._job = job
        self._place = days.place(job)
        self._tries = 0
        self._look_s = _LOOK_S
        self._builder: asyncio.Task[int] | None = None

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        descriptor = await asyncio.to_thread(self._place.wait)
        try:
            yield
        finally:
            os.close(descriptor)

    async def until_built(self) -> Built:
        while (built := await self._look()) is None:
            await self._pause()
        return built

    async def until_begun(self, within_s: float) -> None:
        end = asyncio.get_running_loop().time() + within_s
        while await self._look() is None:
            left_s = end - asyncio.get_running_loop().time()
            if left_s <= 0 or self._place.path(PART).exists():
                return
            await self._pause(left_s)

    async def chunks(self) -> AsyncGenerator[bytes]:
        position = 0
        descriptor: int | None = None
        try:
            while True:
                built = await self._look()
                if built is not None:
                    if descriptor is None:
                        descriptor = os.open(built.path, os.O_RDONLY | os.O_CLOEXEC)
                    while chunk := await asyncio.to_thread(os.pread, descriptor, READ_BYTES, position):
                        position += len(chunk)
                        yield chunk
                    if position == built.facts.bytes:
                        return
                    # What was followed was left unfinished, and another has finished it: the same bytes go on there.
                    os.close(descriptor)
                    descriptor = None
                    continue
                descriptor = await asyncio.to_thread(self._place.open_part, descriptor)
                chunk = (
                    b"" if descriptor is None else await asyncio.to_thread(os.pread, descriptor, READ_BYTES, position)
                )
                if chunk:
                    self._look_s = _LOOK_S
                    position += len(chunk)
                    yield chunk
                else:
                    await self._pause()
        finally:
            if descriptor is not None:
                os.close(descriptor)

    async def _look(self) -> Built | None:
        """Return the file if it is there; see to it that somebody builds it if not.

        Raises:
            NotBuiltError: this process's builder could not.
        """
        built = await asyncio.to_thread(self._place.built)
        if built is not None:
            return built
        if self._builder is not None and self._builder.done():
            code = exits.FAILED if self._builder.cancelled() else self._builder.result()
            self._builder = None
            if code == exits.CLICKHOUSE:
                raise NotBuiltError(self._job, Cause.CLICKHOUSE)
            if code == exits.CHANGED:
                raise NotBuiltError(self._job, Cause.CHANGED)
            if code == exits.FAILED or (self._tries >= _TRIES and code != exits.ANOTHERS):
                raise NotBuiltError(self._job, Cause.FAILED)
        if self._builder is None and not await asyncio.to_thread(self._place.is_being_built):
            self._tries += 1
            self._builder = self._days.begin(self._job, self._place)
        return None

    async def _pause(self, most_s: float = _LOOK_S) -> None:
        """Wait a moment, longer the longer nothing comes, but no longer than this process's builder works."""
        pause = min(self._look_s, most_s)
        self._look_s = min(1.5 * self._look_s, _MAX_LOOK_S)
        if self._builder is not None:
            await asyncio.wait((self._builder,), timeout=pause)
        else:
            await asyncio.sleep(pause)
