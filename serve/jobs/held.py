"""The job that this process has: how far it is, whether it may go on. Its lease is renewed beside the work."""

from __future__ import annotations

import asyncio
import time

from midstream.logs import get_logger
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.sync.jobs import JobRow
from midstream.registry.sync.queue import Held, Progress, Queue
from serve.jobs.errors import StoppedError, Why

_log = get_logger(__name__)


class HeldJob:
    """Steps run in threads too: any thread may tell of progress, and ask whether to stop."""

    def __init__(self, job: JobRow, queue: Queue, owner: str, lease_s: float) -> None:
        self.job = job
        self.objects = job.objects
        self._queue = queue
        self._owner = owner
        self._lease_s = lease_s
        self._renewed_at = time.monotonic()
        self._why: Why | None = None
        self.phase = job.phase
        self._phase_at = time.monotonic()
        self._done = 0
        self._total = 0
        self._changed = dict(job.changed)

    @property
    def changed(self) -> dict[str, int]:
        """Rows by table so far, those of earlier tries too."""
        return dict(self._changed)

    def begin(self, phase: str, total: int = 0) -> None:
        """Note that a step begins; raise StoppedError if the job is not to be gone on with."""
        self.check()
        now = time.monotonic()
        _log.info("job.phase", job=self.job.id, phase=phase, after_s=round(now - self._phase_at, 1))
        self.phase, self._phase_at, self._done, self._total = phase, now, 0, total

    def advance(self, done: int, total: int | None = None) -> None:
        """Note how far the step is."""
        self._done = done
        if total is not None:
            self._total = total

    def count(self, table: str, rows: int) -> None:
        """Note rows that were changed."""
        self._changed[table] = self._changed.get(table, 0) + rows

    def stop(self, why: Why) -> None:
        """Have the job not gone on with; the first reason counts."""
        self._why = self._why or why

    def why_stop(self) -> Why | None:
        """Return why the job is not to be gone on with; None while it is."""
        # A process that stood still must not go on, before the loop beside it has noticed anything.
        if self._why is None and time.monotonic() - self._renewed_at >= self._lease_s:
            self._why = Why.LOST
        return self._why

    def should_stop(self) -> bool:
        """Whether the job is not to be gone on with."""
        return self.why_stop() is not None

    def check(self) -> None:
        """See that the job is to be gone on with.

        Raises:
            StoppedError: it is not.
        """
        if (why := self.why_stop()) is not None:
            raise StoppedError(why)

    async def wait(self, seconds: float, interval_s: float = 0.2) -> None:
        """Wait; raise StoppedError as soon as the job is not to be gone on with."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self.check()
            await asyncio.sleep(min(left_s, interval_s))
        self.check()

    async def keep(self, tell_s: float) -> None:
        """Renew the lease, and tell how far the job is, until cancelled or it is another's."""
        while self.why_stop() is not Why.LOST:
            await self.tell()
            await asyncio.sleep(tell_s)

    async def tell(self) -> None:
        """Tell how far the job is, renew the lease, and hear whether the job was cancelled or is another's."""
        asked_at = time.monotonic()
        step_s = round(asked_at - self._phase_at, 3)
        progress = Progress(self.phase, self._done, self._total, self.objects, self.changed, step_s)
        try:
            held = await asyncio.to_thread(self._queue.renew, self.job.id, self._owner, self._lease_s, progress)
        except RegistryUnavailable as error:
            _log.warning("job.lease_unrenewed", job=self.job.id, error=str(error))
            return
        if held is Held.LOST:
            self.stop(Why.LOST)
            return
        self._renewed_at = asked_at
        if held is Held.CANCELLED:
            self.stop(Why.CANCELLED)
