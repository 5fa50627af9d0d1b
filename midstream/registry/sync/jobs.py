"""Jobs as those see them who ask for them: made, shown, cancelled. Who runs them: :mod:`midstream.registry.sync.queue`.

Every call blocks: async code runs them in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, and_, func, or_, select, update
from uuid_utils import uuid7

from midstream.registry.academies.upserts import insert
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.sync.errors import EndedError, NoJobError, TooManyJobsError
from midstream.registry.sync.tables import REQUEST_ID_CHARS, SyncJob

Kind = Literal["sync", "delete", "erase"]
Status = Literal["queued", "running", "done", "failed", "cancelled"]

MAX_WAITING = 1_000
"""Jobs that wait; each may name as many ids as a request may."""
MAX_PAGE = 100

ENDED: tuple[Status, ...] = ("done", "failed", "cancelled")
NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_until": None}

_NAMES = (
    *("id", "credential", "request_id", "kind", "type", "options", "status", "phase", "objects", "done", "total"),
    "step_seconds",
    *("changed", "report", "error", "attempts", "created_at", "started_at", "ended_at", "cancel_requested"),
    "resweep_at",
)
COLUMNS = (*(getattr(SyncJob, name) for name in _NAMES), SyncJob.ids.is_(None).label("is_for_all"))


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is to do.

    Attributes:
        kind: ``sync``; ``delete`` and ``erase`` take one id.
        type: of the objects.
        ids: each once; None: all of the type.
        options: ``full`` (the source is read whole, not from where the last sync ended) and ``force`` (its rows count
            though what is stored claims a higher version).
    """

    kind: Kind
    type: str
    ids: tuple[str, ...] | None
    options: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job without its ids, which may be many. Moments are UTC; see :class:`midstream.registry.sync.tables.SyncJob`
    for what the rest means."""

    id: str
    credential: str
    request_id: str | None
    kind: Kind
    type: str
    options: Mapping[str, bool]
    status: Status
    phase: str
    objects: int
    done: int
    total: int
    step_seconds: float
    changed: Mapping[str, int]
    report: Mapping[str, Any] | None
    error: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cancel_requested: bool
    resweep_at: datetime | None
    is_for_all: bool

    @property
    def per_s(self) -> float:
        """How much of the step is done a second, over the whole step."""
        return self.done / self.step_seconds if self.step_seconds > 0 else 0.0

    @property
    def is_ended(self) -> bool:
        """Whether nothing more comes of it, but for a resweep."""
        return self.status in ENDED


class Jobs:
    """The jobs of the registry; ``now`` tells the time. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def create(self, order: Order, credential: str = "", request_id: str | None = None) -> tuple[JobRow, bool]:
        """Make a job.

        Args:
            order: what it is to do.
            credential: key of who asks.
            request_id: the same again of the same credential is the same job, whatever has become of it.

        Returns:
            The job, and whether it was made now.

        Raises:
            TooManyJobsError: as many wait as may.
        """
        now = self._now()
        job_id = str(uuid7())
        hash_ = None if request_id is None else _hash(order, request_id)
        values = {
            "id": job_id,
            "credential": credential,
            "request_id": None if request_id is None else request_id[:REQUEST_ID_CHARS],
            "request_hash": hash_,
            "kind": order.kind,
            "type": order.type,
            "ids": None if order.ids is None else list(order.ids),
            "options": {name: value for name, value in order.options.items() if value},
            "status": "queued",
            "phase": "",
            "objects": len(order.ids or ()),
            "done": 0,
            "total": 0,
            "step_seconds": 0.0,
            "changed": {},
            "attempts": 0,
            "created_at": now,
            "not_before": now,
            "cancel_requested": False,
        }
        with unavailable_as_such(), self._engine.begin() as connection:
            if hash_ is not None and (known := _same(connection, credential, hash_)) is not None:
                return known, False
            if (connection.scalar(_count("queued")) or 0) >= MAX_WAITING:
                raise TooManyJobsError(f"{MAX_WAITING} jobs wait, which is the most")
            new = insert(self._engine, SyncJob).values(**values)
            connection.execute(new.on_conflict_do_nothing(index_elements=["credential", "request_hash"]))
            # Not by RETURNING: SQLite takes no column that is NULL for NULL there.
            if (made := find(connection, job_id)) is not None:
                note(
                    connection, f"{order.kind}.ask", f"job/{job_id}", type=order.type, ids=order.ids and len(order.ids)
                )
                return made, True
        with unavailable_as_such(), self._engine.connect() as connection:  # two at once, and the other was first
            known = _same(connection, credential, hash_ or b"")
        if known is None:
            raise NoJobError("the job of this request was removed")
        return known, False

    def get(self, job_id: str) -> JobRow | None:
        """Return a job; None when there is none."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return find(connection, job_id)

    def ids_of(self, job_id: str) -> list[str] | None:
        """Return a job's ids; None for all of its type, or when there is no such job."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return connection.scalar(select(SyncJob.ids).where(SyncJob.id == job_id))

    def response_of(self, job_id: str) -> dict[str, bool] | None:
        """Return whether there is an object of each id that was asked for; None until it is known."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return connection.scalar(select(SyncJob.response).where(SyncJob.id == job_id))

    def page(self, *, limit: int, after: str | None = None, status: Status | None = None) -> Sequence[JobRow]:
        """Return ``limit`` jobs at the most, the newest first; those that come after ``after``.

        Raises:
            NoJobError: there is no job ``after``.
        """
        query = select(*COLUMNS)
        if status is not None:
            query = query.where(SyncJob.status == status)
        with unavailable_as_such(), self._engine.connect() as connection:
            if after is not None:
                at = connection.scalar(select(SyncJob.created_at).where(SyncJob.id == after))
                if at is None:
                    raise NoJobError("there is no such job")
                earlier = and_(SyncJob.created_at == at, SyncJob.id < after)
                query = query.where(or_(SyncJob.created_at < at, earlier))
            query = query.order_by(SyncJob.created_at.desc(), SyncJob.id.desc()).limit(min(limit, MAX_PAGE))
            return [row_of(row) for row in connection.execute(query)]

    def cancel(self, job_id: str) -> JobRow:
        """Have a job end: at once where it waits, at its next safe point where it runs. Twice is as once.

        Raises:
            NoJobError: there is none.
            EndedError: it has ended, or is an erasure that has begun, which goes on to its end.
        """
        cancelled = {"status": "cancelled", "ended_at": self._now(), **NO_LEASE}
        waits = and_(SyncJob.id == job_id, SyncJob.status == "queued", _may_stop())
        runs = and_(SyncJob.id == job_id, SyncJob.status == "running", SyncJob.kind != "erase")
        runs_on = and_(runs, SyncJob.cancel_requested.is_(False))
        with unavailable_as_such(), self._engine.begin() as connection:
            changes = (
                update(SyncJob).where(runs_on).values(cancel_requested=True),
                update(SyncJob).where(waits).values(**cancelled, cancel_requested=True),
            )
            changed = sum(connection.execute(change).rowcount for change in changes)
            job = find(connection, job_id)
            if changed and job is not None:
                note(connection, "job.cancel", f"job/{job_id}", kind=job.kind)
        if job is None:
            raise NoJobError(f"there is no job {job_id}")
        if not job.cancel_requested:
            what = f"is {job.status} already" if job.is_ended else "is an erasure that has begun: it goes on to its end"
            raise EndedError(f"the job {what}")
        return job


def row_of(row: Row[*tuple[Any, ...]]) -> JobRow:
    """Return what :data:`COLUMNS` are of."""
    return JobRow(**{name: getattr(row, name) for name in _NAMES}, is_for_all=bool(row.is_for_all))


def _may_stop() -> Any:
    return or_(SyncJob.kind != "erase", SyncJob.started_at.is_(None))


def find(connection: Connection, job_id: str) -> JobRow | None:
    """Return a job; None when there is none."""
    row = connection.execute(select(*COLUMNS).where(SyncJob.id == job_id)).one_or_none()
    return None if row is None else row_of(row)


def _same(connection: Connection, credential: str, hash_: bytes) -> JobRow | None:
    same = and_(SyncJob.credential == credential, SyncJob.request_hash == hash_)
    row = connection.execute(select(*COLUMNS).where(same)).one_or_none()
    return None if row is None else row_of(row)


def _count(status: Status) -> Any:
    return select(func.count()).select_from(SyncJob).where(SyncJob.status == status)


def _hash(order: Order, request_id: str) -> bytes:
    """Deletions are told apart by what they delete: a client that sends one id with all its requests must not have all
    but the first passed over."""
    scope = [order.kind] if order.kind == "sync" else [order.kind, order.type, *(order.ids or ())]
    return hashlib.sha256("\0".join([*scope, request_id]).encode("utf-8", "surrogatepass")).digest()
