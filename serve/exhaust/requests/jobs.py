"""Builds the days of requests, one request after the other, and tells how far they are.

A process that dies leaves its request to another, once its lease is over: what it has built is there already. A
request ends well, or with a message; whatever passes by itself is tried again a few times.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day

from midstream.clickhouse.client import ClickHouseError
from midstream.exhaust.variant import etag
from midstream.logs import get_logger
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust.requests import Done, Progress, RequestRow, Requests
from midstream.settings import Settings
from serve.exhaust.asked import Asked
from serve.exhaust.closed import ClosedDays, GoneError, NotClosedError
from serve.exhaust.days.builder.job import Job
from serve.exhaust.days.follow import Cause, Days, NotBuiltError
from serve.exhaust.days.shelf import Built
from serve.exhaust.download.archive import Finished
from serve.exhaust.requests.again import Held, asked_again

_log = get_logger(__name__)

_CHANGES = 3
"""Times that a request is begun anew as its days were revised while they were built."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a runner does what it does.

    Attributes:
        poll_s: between looks for a request.
        tell_s: between notes of how far it is.
        lease_s: after which a request is another's if nothing was noted.
        tries: of a day; ``pause_s`` lies between two.
        away_s: until the registry is asked again that did not answer.
        look_s: between looks after requests that have ended.
    """

    poll_s: float = 1.0
    tell_s: float = 1.0
    lease_s: float = 30.0
    tries: int = 5
    pause_s: float = 5.0
    away_s: float = 5.0
    look_s: float = 30.0


PACE = Pace()


class _FailedError(Exception):
    """A request cannot be built; the message is for who asked."""


class _ChangedError(Exception):
    """A day was revised while it was built."""


class _Work:
    """How far a request is."""

    def __init__(self, days: int) -> None:
        self.days = days
        self.tag = ""
        self.job: Job | None = None
        self.built: list[Built] = []
        self.told: Progress | None = None
        self.told_at = 0.0

    def begin(self, tag: str) -> None:
        self.tag, self.job, self.built = tag, None, []

    @property
    def events(self) -> int:
        return sum(one.facts.events for one in self.built)

    @property
    def bytes(self) -> int:
        return sum(one.facts.bytes for one in self.built)

    def progress(self, within: tuple[int, int] | None) -> Progress:
        """Return it; ``within`` is how many events of the next day are built, and of how many."""
        events, of_events = within or (0, 0)
        share = min(1.0, events / of_events) if of_events else 0.0
        done = len(self.built)
        return Progress(self.tag, done, self.events + events, min(99, int(100 * (done + share) / self.days)))


class Runner:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, held: Held, closed: ClosedDays, days: Days, pace: Pace) -> None:
        self._quota = settings.exhaust_request_bytes
        self._time = timedelta(hours=settings.exhaust_request_hours)
        self._held = held
        self._closed = closed
        self._days = days
        self._pace = pace
        self._owner = str(uuid.uuid4())
        self._woken = asyncio.Event()
        self._current: RequestRow | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._run(), name="exhaust-requests")

    async def close(self) -> None:
        """Stop; what is not done is another's at once."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._current is not None:
            with contextlib.suppress(RegistryUnavailable):  # then when its lease is over
                await self._held.calls.change(Requests.release, self._current.id, self._owner)

    def wake(self) -> None:
        """Have it look for a request now."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                self._current = await self._claim()
                if self._current is not None:
                    await self._build(self._current)
                    self._current = None
                    continue
            except (RegistryUnavailable, OSError) as error:  # the request is begun anew when its lease is over
                _log.warning("exhaust.requests_wait", error=str(error))
                self._current = None
                await asyncio.sleep(self._pace.away_s)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.poll_s):
                    await self._woken.wait()

    async def _claim(self) -> RequestRow | None:
        if not await self._held.calls.read(Requests.is_any_waiting):  # so that nothing is locked to learn it
            return None
        return await self._held.calls.change(Requests.claim, self._owner, self._pace.lease_s)

    async def _build(self, row: RequestRow) -> None:
        """Build a request to its end, as long as it is this process's."""
        work = _Work(len(row.ask.period))
        building = asyncio.create_task(self._days_of(row, work), name="exhaust-request")
        try:
            while not building.done():
                await asyncio.wait((building,), timeout=self._pace.tell_s)
                if not building.done() and work.tag and not await self._tell(row, work):
                    _log.warning("exhaust.request_lost", request=row.id)
                    return
        finally:
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)
        try:
            done = building.result()
            if await self._held.calls.change(Requests.succeed, row.id, self._owner, done, self._quota):
                _log.info("exhaust.request_built", request=row.id, events=done.events, bytes=done.bytes)
                return
            message = await self._beyond_quota(row, done.bytes)
        except _FailedError as error:
            message = str(error)
        except RegistryUnavailable:
            raise
        except Exception:  # noqa: BLE001  the top of a request: it must not stay open for ever, nor end all others
            _log.exception("exhaust.request_failed", request=row.id)
            message = "it could not be built; the server's log says why"
        if await self._held.calls.change(Requests.fail, row.id, self._owner, message):
            _log.warning("exhaust.request_not_built", request=row.id, reason=message)
            if work.tag:
                await asyncio.to_thread(self._held.kept.remove, row.id, work.tag)

    async def _tell(self, row: RequestRow, work: _Work) -> bool:
        """Note how far the request is; return whether it is still this process's, as far as is known."""
        within = None if work.job is None else await asyncio.to_thread(self._days.place(work.job).progress)
        progress = work.progress(within)
        if progress == work.told and time.monotonic() - work.told_at < self._pace.lease_s / 3:
            return True
        try:
            ours = await self._held.calls.change(Requests.progress, row.id, self._owner, self._pace.lease_s, progress)
        except RegistryUnavailable:
            return True  # it answers later, who has it then
        work.told, work.told_at = progress, time.monotonic()
        return ours

    async def _days_of(self, row: RequestRow, work: _Work) -> Done:
        for _ in range(_CHANGES):
            asked = await self._asked(row)
            work.begin(etag(asked.keys))
            # Before its folder is there: folders that the registry does not know are removed.
            noted = work.progress(None)
            if not await self._held.calls.change(Requests.progress, row.id, self._owner, self._pace.lease_s, noted):
                raise _FailedError("another process builds it")
            with contextlib.suppress(_ChangedError):
                for job in asked.jobs:
                    work.job = job
                    work.built.append(await self._day(row, work.tag, job))
                    work.job = None
                    if work.bytes + await self._held.calls.read(Requests.held_bytes, row.licence_id) > self._quota:
                        raise _FailedError(await self._beyond_quota(row, work.bytes))
                if etag((await self._asked(row)).keys) == work.tag:
                    return await self._done(row, asked, work)
            await asyncio.to_thread(self._held.kept.remove, row.id, work.tag)
        raise _FailedError("its days were revised again and again while they were built")

    async def _asked(self, row: RequestRow) -> Asked:
        asked = await asked_again(self._held.access, row)
        if asked is None:
            raise _FailedError("the licence has no right to this dataset or resource any more")
        return asked

    async def _day(self, row: RequestRow, tag: str, job: Job) -> Built:
        """Return a day's file as it is kept for the request."""
        kept = self._held.kept
        found = await asyncio.to_thread(kept.days, row.id, tag, (job,))
        if found is not None:
            return found[0]  # by a process that died
        message = ""
        for number in range(self._pace.tries):
            if number:
                await asyncio.sleep(self._pace.pause_s)
            try:
                if await self._days.built(job) is None:
                    await self._closed.check((job.day,))
                    await self._days.ensure(job)
                if (built := await self._days.built(job)) is not None:
                    return await asyncio.to_thread(kept.keep, row.id, tag, job, built)
                message = f"the day {job.day}: its file was removed as soon as it was built"
            except GoneError as error:
                raise _FailedError(str(error)) from None
            except NotBuiltError as error:
                if error.cause is Cause.CHANGED:
                    raise _ChangedError from None
                if error.cause is not Cause.CLICKHOUSE:
                    raise _FailedError(str(error)) from None
                message = str(error)
            except NotClosedError as error:
                message = str(error)
            except ClickHouseError:
                message = f"the day {job.day}: {Cause.CLICKHOUSE.value}"
            except FileNotFoundError:
                message = f"the day {job.day}: its file was removed as soon as it was built"
        raise _FailedError(f"{message} ({self._pace.tries} tries)")

    async def _done(self, row: RequestRow, asked: Asked, work: _Work) -> Done:
        built = await asyncio.to_thread(self._held.kept.days, row.id, work.tag, asked.jobs)
        if built is None:
            raise _FailedError("its files were removed while they were built")
        expires_at = self._expires_at(asked)
        return Done(work.tag, len(built), work.events, Finished(asked, built).total_bytes, expires_at)

    def _expires_at(self, asked: Asked) -> datetime:
        """Return when the archive goes: with the retention of its first day, if that is earlier."""
        now = self._held.calls.now()
        expires_at = now + self._time
        if retention_days := asked.dataset.retention_days:
            gone = asked.period.first + timedelta(days=retention_days + 1)
            expires_at = min(expires_at, datetime.combine(gone, time_of_day(), UTC))
        if expires_at <= now:
            raise _FailedError(f"the day {asked.period.first} is past the retention of {retention_days} days")
        return expires_at

    async def _beyond_quota(self, row: RequestRow, bytes_: int) -> str:
        held = await self._held.calls.read(Requests.held_bytes, row.licence_id)
        return (
            f"its {bytes_} bytes or more and the {held} that earlier requests hold are more than the {self._quota} "
            "that a licence may hold at once: ask for fewer days, or again when earlier requests have expired"
        )
