"""Jobs as those see them who run them: one at a time in a whole deployment, as corrections must not overlap.

A process runs a job as long as it renews its lease; when it dies, another takes the job over. Who has lost its lease
changes nothing any more. A job that is done is taken up once more when its resweep is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, NamedTuple, get_args

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, not_, or_, select, update

from midstream.registry.admin_log import prune_acts
from midstream.registry.engine import unavailable_as_such
from midstream.registry.exhaust.locks import lock
from midstream.registry.sync.jobs import COLUMNS, ENDED, NO_LEASE, JobRow, Kind, find, row_of
from midstream.registry.sync.tables import SyncJob, SyncRepair

MAX_ATTEMPTS = 5
"""Times that a job is begun that fails, or ends the process that runs it."""
MAX_WAIT = timedelta(hours=24)
"""How long a job is begun again that finds Kafka or ClickHouse away; that is no attempt."""
REMEMBERED = timedelta(days=90)
"""How long it is known what became of a job."""
BACK_OFF = timedelta(seconds=5)
BACK_OFF_MAX = timedelta(minutes=5)

_IS_KNOWN = or_(*(SyncJob.kind == kind for kind in get_args(Kind)))
"""Jobs of a kind that a newer version has brought wait for a process of that version."""


class Held(Enum):
    """Whose a job is, as it turns out when its lease is renewed."""

    OURS = "ours"
    CANCELLED = "cancelled"
    """Still ours, to be ended at the next safe point."""
    LOST = "lost"


class Claim(NamedTuple):
    """A job that is the claimer's to run.

    Attributes:
        job: as it was left.
        is_resweep: it is done, but for looking through the events once more.
    """

    job: JobRow
    is_resweep: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: ``done`` of ``total`` (0: not known) in a phase, of so many objects."""

    phase: str
    done: int
    total: int
    objects: int
    changed: Mapping[str, int]
    step_seconds: float = 0.0
    """Since the phase began."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Attributes:
        objects: that it was about.
        changed: rows by table.
        response: whether there is an object of each id that was asked for; None where all were.
        report: what an erasure tells.
        resweep_s: after how many seconds the events are looked through once more; None: never.
        ids: in the place of those it was given; None: they stay.
    """

    objects: int
    changed: Mapping[str, int]
    response: Mapping[str, bool] | None = None
    report: Mapping[str, Any] | None = None
    resweep_s: float | None = None
    ids: tuple[str, ...] | None = None


class Queue:
    """The jobs of the registry; ``now`` tells the time. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def is_any_due(self) -> bool:
        """Whether :meth:`claim` may find something; it locks nothing."""
        now = self._now()
        due = or_(_is_queued(now), _is_left(now), _is_resweep(now))
        with unavailable_as_such(), self._engine.connect() as connection:
            return connection.scalar(select(SyncJob.id).where(due).limit(1)) is not None

    def claim(self, owner: str, lease_s: float) -> Claim | None:
        """Return the job that is due first; it is ``owner``'s to run now.

        Returns:
            None when none is, or another process runs one or repairs stored events.
        """
        now = self._now()
        with unavailable_as_such(), self._engine.begin() as connection:
            lock(connection, SyncJob)
            self._end_left(connection, now)
            if connection.scalar(select(SyncJob.id).where(SyncJob.lease_until > now).limit(1)) is not None:
                return None
            if connection.scalar(select(SyncRepair.id).where(SyncRepair.lease_until > now)) is not None:
                return None
            found = _due_first(connection, now)
            if found is None:
                return None
            job_id, is_resweep = found
            values: dict[str, Any] = {
                "lease_owner": owner,
                "lease_until": now + timedelta(seconds=lease_s),
                "attempts": SyncJob.attempts + 1,
            }
            if not is_resweep:
                values |= {"status": "running", "started_at": func.coalesce(SyncJob.started_at, now), "error": None}
            connection.execute(update(SyncJob).where(SyncJob.id == job_id).values(**values))
            job = find(connection, job_id)
        return None if job is None else Claim(job, is_resweep)

    def renew(self, job_id: str, owner: str, lease_s: float, progress: Progress | None = None) -> Held:
        """Renew the lease, and note how far the job is."""
        values: dict[str, Any] = {"lease_until": self._now() + timedelta(seconds=lease_s)}
        if progress is not None:
            values |= {name: getattr(progress, name) for name in ("phase", "done", "total", "objects", "step_seconds")}
            values["changed"] = dict(progress.changed)
        renewed = update(SyncJob).where(_is_owned(job_id, owner)).values(**values)
        with unavailable_as_such(), self._engine.begin() as connection:
            cancelled = connection.execute(renewed.returning(SyncJob.cancel_requested)).scalar_one_or_none()
        if cancelled is None:
            return Held.LOST
        return Held.CANCELLED if cancelled else Held.OURS

    def answer(self, job_id: str, owner: str, response: Mapping[str, bool]) -> bool:
        """Note of each id that was asked for whether there is such an object, before the job has ended; False when it
        is not ``owner``'s any more."""
        return self._change(_is_owned(job_id, owner), {"response": dict(response)})

    def release(self, job_id: str, owner: str) -> bool:
        """Give a job back unfinished, for another process to go on with at once; this was no attempt."""
        with unavailable_as_such(), self._engine.begin() as connection:
            values = {"attempts": SyncJob.attempts - 1, **NO_LEASE}
            changed = connection.execute(update(SyncJob).where(_is_owned(job_id, owner)).values(**values))
            waits = and_(SyncJob.id == job_id, SyncJob.status == "running", SyncJob.lease_owner.is_(None))
            connection.execute(update(SyncJob).where(waits).values(status="queued", not_before=self._now()))
            return bool(changed.rowcount)

    def finish(self, job_id: str, owner: str, outcome: Outcome) -> bool:
        """End a job well, or its resweep; False when it is not ``owner``'s any more."""
        now = self._now()
        resweep_at = None if outcome.resweep_s is None else now + timedelta(seconds=outcome.resweep_s)
        values: dict[str, Any] = {
            "status": "done",
            "phase": "done",
            "done": SyncJob.total,
            "ended_at": func.coalesce(SyncJob.ended_at, now),
            "objects": outcome.objects,
            "changed": dict(outcome.changed),
            "error": None,
            "attempts": 0,
            "cancel_requested": False,
            "resweep_at": resweep_at,
            **NO_LEASE,
        }
        if outcome.response is not None:
            values["response"] = dict(outcome.response)
        if outcome.report is not None:
            values["report"] = dict(outcome.report)
        if outcome.ids is not None:
            values["ids"] = list(outcome.ids)
        return self._change(_is_owned(job_id, owner), values)

    def cancel(self, job_id: str, owner: str) -> bool:
        """End a job that was asked to end; False when it is not ``owner``'s any more."""
        return self._change(_is_owned(job_id, owner), _ended("cancelled", self._now()))

    def fail(self, job_id: str, owner: str, error: str) -> bool:
        """End a job that runs badly, for good."""
        running = and_(_is_owned(job_id, owner), SyncJob.status == "running")
        return self._change(running, _failed(error, self._now()))

    def put_off(self, job_id: str, owner: str, error: str, *, is_attempt: bool) -> JobRow | None:
        """Have a job begun again later, each time after a longer rest, or fail it.

        Args:
            job_id: which.
            owner: who has tried.
            error: why it did not come to its end.
            is_attempt: it counts as one of :data:`MAX_ATTEMPTS`; else it is given up :data:`MAX_WAIT` after it was
                made.

        Returns:
            The job; None when it is not ``owner``'s any more.
        """
        now = self._now()
        owned = _is_owned(job_id, owner)
        with unavailable_as_such(), self._engine.begin() as connection:
            lock(connection, SyncJob)  # as claim() does first: two orders of locks could wait for each other
            row = connection.execute(select(*COLUMNS).where(owned)).one_or_none()
            if row is None:
                return None
            job = row_of(row)
            later = now + _rest(job.attempts if is_attempt else 1 + int((now - job.created_at) / BACK_OFF_MAX))
            since = max(job.created_at, job.ended_at or job.created_at)
            gives_up = job.attempts >= MAX_ATTEMPTS if is_attempt else now - since > MAX_WAIT
            values: dict[str, Any] = {"attempts": job.attempts if is_attempt else job.attempts - 1, **NO_LEASE}
            if job.status == "done":
                values["resweep_at"] = None if gives_up else later
            elif gives_up:
                values |= _failed(f"{error} (given up after {job.attempts} tries)", now)
            else:
                values |= {"status": "queued", "not_before": later, "error": error}
            connection.execute(update(SyncJob).where(owned).values(**values))
            return find(connection, job_id)

    def count_waiting(self) -> int:
        """Return how many jobs wait to be run."""
        with unavailable_as_such(), self._engine.connect() as connection:
            waiting = select(func.count()).select_from(SyncJob).where(SyncJob.status == "queued")
            return connection.scalar(waiting) or 0

    def prune(self) -> int:
        """Forget the jobs that ended long ago, and what administrators did longer ago; return how many jobs."""
        prune_acts(self._engine)
        old = and_(SyncJob.status.in_(ENDED), SyncJob.ended_at < self._now() - REMEMBERED, SyncJob.resweep_at.is_(None))
        with unavailable_as_such(), self._engine.begin() as connection:
            return int(connection.execute(delete(SyncJob).where(old)).rowcount)

    def _change(self, which: ColumnElement[bool], values: dict[str, Any]) -> bool:
        with unavailable_as_such(), self._engine.begin() as connection:
            return bool(connection.execute(update(SyncJob).where(which).values(**values)).rowcount)

    @staticmethod
    def _end_left(connection: Connection, now: datetime) -> None:
        """End the jobs whose process has died, that were cancelled, or have ended each process that ran them."""
        left = _is_left(now)
        tired = SyncJob.attempts >= MAX_ATTEMPTS
        message = f"it was begun {MAX_ATTEMPTS} times and never came to its end"
        resweep = and_(SyncJob.status == "done", SyncJob.lease_until <= now)
        changes: tuple[tuple[ColumnElement[bool], dict[str, Any]], ...] = (
            (and_(left, SyncJob.cancel_requested), _ended("cancelled", now)),
            (and_(left, tired), _failed(message, now)),
            (and_(resweep, tired), {"resweep_at": None, **NO_LEASE}),
        )
        for which, values in changes:
            connection.execute(update(SyncJob).where(which).values(**values))


def _due_first(connection: Connection, now: datetime) -> tuple[str, bool] | None:
    left = connection.scalar(select(SyncJob.id).where(_is_left(now)).order_by(SyncJob.created_at).limit(1))
    if left is not None:
        return left, False
    queued = select(SyncJob.id, SyncJob.not_before).where(_is_queued(now))
    queued = queued.order_by(SyncJob.not_before, SyncJob.created_at, SyncJob.id).limit(1)
    first = connection.execute(queued).one_or_none()
    resweep = select(SyncJob.id, SyncJob.resweep_at).where(_is_resweep(now)).order_by(SyncJob.resweep_at).limit(1)
    again = connection.execute(resweep).one_or_none()
    if again is not None and (first is None or again.resweep_at < first.not_before):
        return again.id, True
    return None if first is None else (first.id, False)


def _is_queued(now: datetime) -> ColumnElement[bool]:
    return and_(_IS_KNOWN, SyncJob.status == "queued", SyncJob.not_before <= now)


def _is_left(now: datetime) -> ColumnElement[bool]:
    """Its process has not renewed its lease."""
    return and_(_IS_KNOWN, SyncJob.status == "running", SyncJob.lease_until <= now)


def _is_resweep(now: datetime) -> ColumnElement[bool]:
    held = and_(SyncJob.lease_until.is_not(None), SyncJob.lease_until > now)
    return and_(_IS_KNOWN, SyncJob.status == "done", SyncJob.resweep_at <= now, not_(held))


def _is_owned(job_id: str, owner: str) -> ColumnElement[bool]:
    return and_(SyncJob.id == job_id, SyncJob.status.in_(("running", "done")), SyncJob.lease_owner == owner)


def _ended(status: str, now: datetime) -> dict[str, Any]:
    return {"status": status, "ended_at": now, **NO_LEASE}


def _failed(error: str, now: datetime) -> dict[str, Any]:
    return {**_ended("failed", now), "error": error}


def _rest(tries: int) -> timedelta:
    """Return how long to rest after so many tries."""
    factor: int = 2 ** min(max(tries, 1) - 1, 10)
    return min(BACK_OFF * factor, BACK_OFF_MAX)
