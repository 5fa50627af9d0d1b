"""Takes up jobs, one after the other, runs each to its end or puts it off, and says how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args

from aiokafka.errors import KafkaError

from midstream.clickhouse.client import ClickHouseError
from midstream.kafka.dimension_publisher import PublishError
from midstream.logs import get_logger
from midstream.metrics import SYNC_JOBS, SYNC_ROWS_CHANGED, SYNC_RUNNING, SYNC_SECONDS, SYNC_WAITING
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.sync.jobs import Jobs, Kind
from midstream.registry.sync.queue import Claim, Outcome, Queue
from serve.jobs.errors import AwayError, FailedError, StoppedError, TryAgainError, Why
from serve.jobs.held import HeldJob
from serve.jobs.steps import run_job, run_resweep
from serve.jobs.tools import Tools

_log = get_logger(__name__)

_NOT_ANSWERED = "a fault of the program: the log of `jobs` says more"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a runner does what it does, in seconds.

    Attributes:
        poll_s: between looks for a job.
        tell_s: between notes of how far it is.
        lease_s: after which a job is another's if nothing was noted.
        away_s: until the registry is asked again that did not answer.
        prune_s: between looks after jobs that ended long ago.
    """

    poll_s: float = 0.5
    tell_s: float = 1.0
    lease_s: float = 30.0
    away_s: float = 2.0
    prune_s: float = 3_600.0


class Repairs(Protocol):
    """See :class:`serve.jobs.repairer.Repairer`."""

    async def if_due(self, owner: str) -> None:
        """Repair stored events when it is time; raise RegistryUnavailable."""


class Runner:
    """Belongs to one event loop."""

    def __init__(
        self,
        jobs: Jobs,
        queue: Queue,
        make_tools: Callable[[str], Tools],
        repairer: Repairs | None = None,
        pace: Pace | None = None,
    ) -> None:
        """
        Args:
            jobs: of the registry.
            queue: of the registry.
            make_tools: given this runner's name, by which its leases are held.
            repairer: has a turn whenever no job is due.
            pace: of the work.
        """
        self._jobs = jobs
        self._queue = queue
        self._pace = pace or Pace()
        self._repairer = repairer
        self._owner = str(uuid.uuid4())
        self._tools = make_tools(self._owner)
        for kind in get_args(Kind):
            SYNC_JOBS.labels(kind, "failed")  # 0 from the start on: the first one is seen to be one more
        self._stopping = asyncio.Event()
        self._held: HeldJob | None = None
        self._pruned_at = float("-inf")

    def stop(self) -> None:
        """Have it end at the next safe point; the job it has is another's then."""
        self._stopping.set()
        if self._held is not None:
            self._held.stop(Why.RELEASED)

    async def run(self) -> None:
        """Run jobs until told to stop.

        Raises:
            Exception: what no step answers; the job is begun again, and the process must end.
        """
        while not self._stopping.is_set():
            try:
                claim = await self._claim()
                if claim is None and self._repairer is not None:
                    await self._repairer.if_due(self._owner)
            except RegistryUnavailable as error:
                _log.warning("jobs.registry_away", error=str(error))
                await self._rest(self._pace.away_s)
                continue
            if claim is None:
                await self._rest(self._pace.poll_s)
                continue
            await self._run(claim)

    async def _claim(self) -> Claim | None:
        SYNC_WAITING.set(await asyncio.to_thread(self._queue.count_waiting))
        if time.monotonic() - self._pruned_at >= self._pace.prune_s:
            await asyncio.to_thread(self._queue.prune)
            self._pruned_at = time.monotonic()
        if not await asyncio.to_thread(self._queue.is_any_due):  # so that nothing is locked to learn it
            return None
        return await asyncio.to_thread(self._queue.claim, self._owner, self._pace.lease_s)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _run(self, claim: Claim) -> None:
        """Run a job; note how it ended."""
        job = claim.job
        held = self._held = HeldJob(job, self._queue, self._owner, self._pace.lease_s)
        if self._stopping.is_set():
            held.stop(Why.RELEASED)
        _log.info("job.begun", job=job.id, kind=job.kind, type=job.type, attempt=job.attempts, again=claim.is_resweep)
        SYNC_RUNNING.set(1)
        began = time.monotonic()
        keeping = asyncio.create_task(held.keep(self._pace.tell_s), name="job-lease")
        try:
            end = await self._end_of(claim, held)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            self._held = None
            SYNC_RUNNING.set(0)
            for table, rows in held.changed.items():
                SYNC_ROWS_CHANGED.labels(table).inc(max(0, rows - job.changed.get(table, 0)))
        took_s = time.monotonic() - began
        SYNC_SECONDS.labels(job.kind).observe(took_s)
        SYNC_JOBS.labels(job.kind, end).inc()
        _log.info("job.ended", job=job.id, end=end, changed=held.changed, took_s=round(took_s, 1))

    async def _end_of(self, claim: Claim, held: HeldJob) -> str:
        """Run a job, have the registry note how it ended, and return that as a word."""
        job = claim.job
        try:
            outcome = await self._work(claim, held)
            return await self._note("done" if not claim.is_resweep else "resweep", self._finish, job.id, outcome)
        except StoppedError as error:
            if error.why is Why.LOST:
                return "lost"
            await self._tell(held)
            note = self._queue.cancel if error.why is Why.CANCELLED and not claim.is_resweep else self._queue.release
            return await self._note(error.why.value, note, job.id, self._owner)
        except FailedError as error:
            await self._tell(held)
            if claim.is_resweep:
                return await self._put_off(claim, str(error), is_attempt=True)
            _log.warning("job.failed", job=job.id, error=str(error))
            return await self._note("failed", self._queue.fail, job.id, self._owner, str(error))
        except TryAgainError as error:
            await self._tell(held)
            return await self._put_off(claim, str(error), is_attempt=True)
        except (AwayError, PublishError, KafkaError, RegistryUnavailable, ClickHouseError) as error:
            await self._tell(held)
            # An answer of ClickHouse, such as a query that it refuses, is no sign of its being away.
            is_attempt = isinstance(error, ClickHouseError) and error.code is not None
            return await self._put_off(claim, str(error) or type(error).__name__, is_attempt=is_attempt)
        except Exception:
            _log.exception("job.crashed", job=job.id)
            with contextlib.suppress(RegistryUnavailable):
                await asyncio.to_thread(self._queue.put_off, job.id, self._owner, _NOT_ANSWERED, is_attempt=True)
            raise

    async def _work(self, claim: Claim, held: HeldJob) -> Outcome:
        ids = await asyncio.to_thread(self._jobs.ids_of, claim.job.id)
        if ids is None and not claim.job.is_for_all:
            raise StoppedError(Why.LOST)  # the job was removed
        return await (run_resweep if claim.is_resweep else run_job)(held, self._tools, ids)

    def _finish(self, job_id: str, outcome: Outcome) -> bool:
        return self._queue.finish(job_id, self._owner, outcome)

    async def _tell(self, held: HeldJob) -> None:
        with contextlib.suppress(RegistryUnavailable):
            await held.tell()

    async def _note(self, end: str, note: Callable[..., bool], *args: object) -> str:
        """Have the registry note an end, and wait for it as long as the lease may last; else another begins it anew."""
        until = time.monotonic() + self._pace.lease_s
        while True:
            try:
                return end if await asyncio.to_thread(note, *args) else "lost"
            except RegistryUnavailable as error:
                if time.monotonic() >= until or self._stopping.is_set():
                    _log.warning("job.end_unnoted", end=end, error=str(error))
                    return "lost"
                await self._rest(self._pace.away_s)

    async def _put_off(self, claim: Claim, error: str, *, is_attempt: bool) -> str:
        job_id = claim.job.id
        try:
            job = await asyncio.to_thread(self._queue.put_off, job_id, self._owner, error, is_attempt=is_attempt)
        except RegistryUnavailable as trouble:
            _log.warning("job.end_unnoted", end="put_off", error=str(trouble))
            return "lost"
        if job is None:
            return "lost"
        _log.warning("job.put_off", job=job_id, status=job.status, error=error)
        return "failed" if job.status == "failed" else "put_off"
