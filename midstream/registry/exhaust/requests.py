"""Requests for downloads that take long: who asked for what, how far it is, and which process builds it.

A process builds a request as long as it renews its lease; when it dies, another takes the request over. Who has lost
its lease changes nothing any more.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, func, insert, or_, select, update

from midstream.exhaust.names import Format
from midstream.exhaust.period import Period
from midstream.exhaust.variant import Variant, variant_from
from midstream.registry.engine import unavailable_as_such
from midstream.registry.exhaust.errors import NotThereError, TooManyError
from midstream.registry.exhaust.tables import Licence, Request

Status = Literal["SUBMITTED", "PROCESSING", "SUCCESS", "FAILED", "EXPIRED"]

MAX_OPEN = 20
"""Requests of a licence that wait or are built."""
MAX_KEPT = 500
"""Requests of a licence that wait, are built, or can be downloaded."""
MAX_ATTEMPTS = 5
"""Times that a request is begun: what ends each process that builds it is given up."""
REMEMBERED = timedelta(days=90)
"""How long it is known what became of a request."""

_OPEN = ("SUBMITTED", "PROCESSING")
_NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_until": None}
_AGAIN: dict[str, Any] = {
    "status": "SUBMITTED",
    "completed_at": None,
    "expires_at": None,
    "days_built": 0,
    "events": 0,
    "percent": 0,
    "bytes": 0,
    "message": None,
    "tag": None,
    "attempts": 0,
    **_NO_LEASE,
}
# A licence that was revoked and made anew has nothing of what it had before.
_SINCE = select(Licence.created_at).where(Licence.id == Request.licence_id).correlate(Request).scalar_subquery()
_OWN = Request.submitted_at >= _SINCE


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request is for: days of a resource (canonical) of a dataset, in a form."""

    dataset: str
    resource: str
    first: date
    last: date
    variant: Variant

    @property
    def period(self) -> Period:
        """Its days."""
        return Period(self.first, self.last)

    @property
    def format(self) -> Format:
        """Of the lines."""
        return self.variant.format

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        days = {"from": str(self.first), "to": str(self.last)}
        return {"dataset": self.dataset, "resource": self.resource, **days, "variant": self.variant.as_dict()}


_NAMES = (
    *("id", "licence_id", "ask", "status", "submitted_at", "completed_at", "expires_at"),
    *("days_built", "events", "percent", "bytes", "message", "tag"),
)
_COLUMNS = tuple(getattr(Request, name) for name in _NAMES)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request. Moments are UTC.

    Attributes:
        days_built: of the days asked for.
        events: in what is built so far.
        percent: of the work, about.
        bytes: of the archive; 0 until it is there.
        message: why it failed.
        tag: entity tag of the archive that is built, or was.
    """

    id: str
    licence_id: int
    ask: Ask
    status: Status
    submitted_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    days_built: int
    events: int
    percent: int
    bytes: int
    message: str | None
    tag: str | None

    @property
    def is_open(self) -> bool:
        """Whether it waits, or is built."""
        return self.status in _OPEN


class Progress(NamedTuple):
    """How far a request is built."""

    tag: str
    days_built: int
    events: int
    percent: int


class Done(NamedTuple):
    """What came of a request.

    Attributes:
        tag: the archive's entity tag.
        days_built: all that were asked for.
        events: in the archive.
        bytes: of the archive.
        expires_at: until when it can be downloaded.
    """

    tag: str
    days_built: int
    events: int
    bytes: int
    expires_at: datetime


class Requests:
    """The requests of the registry; ``now`` tells the time. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def find(self, licence_id: int, ask: Ask) -> RequestRow | None:
        """Return a licence's request for the same that waits, is built or can be downloaded; None without one."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return self._same(connection, licence_id, ask)

    def submit(self, licence_id: int, ask: Ask) -> RequestRow:
        """Return a licence's request for what it asks for: the one that there is, see :meth:`find`, or a new one.

        Raises:
            TooManyError: it has as many as it may have.
        """
        now = self._now()
        with unavailable_as_such(), self._engine.begin() as connection:
            _lock_licence(connection, licence_id)
            if (known := self._same(connection, licence_id, ask)) is not None:
                return known
            of_licence = select(func.count()).select_from(Request).where(Request.licence_id == licence_id)
            if (connection.scalar(of_licence.where(Request.status.in_(_OPEN))) or 0) >= MAX_OPEN:
                raise TooManyError(f"{MAX_OPEN} requests wait or are being built, which is the most")
            if (connection.scalar(of_licence.where(_is_live(now))) or 0) >= MAX_KEPT:
                raise TooManyError(f"{MAX_KEPT} requests have not expired, which is the most")
            row = {"id": str(uuid.uuid4()), "licence_id": licence_id, "submitted_at": now}
            new = insert(Request).values(**row, **_AGAIN, ask=ask.as_dict(), ask_hash=_hash(ask)).returning(*_COLUMNS)
            return self._row(connection.execute(new).one())

    def get(self, request_id: str, licence_id: int | None = None) -> RequestRow | None:
        """Return a request; None when there is none, or it is not this licence's."""
        query = select(*_COLUMNS).where(Request.id == request_id, _OWN)
        if licence_id is not None:
            query = query.where(Request.licence_id == licence_id)
        with unavailable_as_such(), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else self._row(row)

    def page(self, licence_id: int, *, limit: int, after: str | None = None) -> Sequence[RequestRow]:
        """Return ``limit`` requests of a licence at the most, the newest first; those that come after ``after``.

        Raises:
            NotThereError: it has no request ``after``.
        """
        query = select(*_COLUMNS).where(Request.licence_id == licence_id, _OWN)
        with unavailable_as_such(), self._engine.connect() as connection:
            if after is not None:
                at = connection.scalar(query.with_only_columns(Request.submitted_at).where(Request.id == after))
                if at is None:
                    raise NotThereError("there is no such request")
                older = and_(Request.submitted_at == at, Request.id < after)
                query = query.where(or_(Request.submitted_at < at, older))
            query = query.order_by(Request.submitted_at.desc(), Request.id.desc()).limit(limit)
            return [self._row(row) for row in connection.execute(query)]

    def claim(self, owner: str, lease_s: float) -> RequestRow | None:
        """Return the oldest request that waits, or whose builder has died; it is ``owner``'s to build now.

        Returns:
            None when there is none.
        """
        now = self._now()
        message = f"building it was begun {MAX_ATTEMPTS} times and never ended"
        given_up = update(Request).where(_is_left(now), Request.attempts >= MAX_ATTEMPTS)
        oldest = select(Request.id).where(_is_waiting(now)).order_by(Request.submitted_at, Request.id).limit(1)
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(given_up.values(**_failed(message, now)))
            request_id = connection.scalar(oldest.with_for_update(skip_locked=True))
            if request_id is None:
                return None
            lease = {"lease_owner": owner, "lease_until": now + timedelta(seconds=lease_s)}
            values = {**lease, "status": "PROCESSING", "attempts": Request.attempts + 1}
            taken = update(Request).where(Request.id == request_id).values(**values).returning(*_COLUMNS)
            return self._row(connection.execute(taken).one())

    def is_any_waiting(self) -> bool:
        """Whether :meth:`claim` would find something."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return connection.scalar(select(Request.id).where(_is_waiting(self._now())).limit(1)) is not None

    def progress(self, request_id: str, owner: str, lease_s: float, progress: Progress) -> bool:
        """Note how far a request is, and renew its lease; False when it is not ``owner``'s any more."""
        values = {**progress._asdict(), "lease_until": self._now() + timedelta(seconds=lease_s)}
        return self._change(_is_owned(request_id, owner), values)

    def release(self, request_id: str, owner: str) -> bool:
        """Give a request back unfinished; this was no attempt."""
        values = {"status": "SUBMITTED", "attempts": Request.attempts - 1, **_NO_LEASE}
        return self._change(_is_owned(request_id, owner), values)

    def succeed(self, request_id: str, owner: str, done: Done, quota: int) -> bool:
        """End a request well. All that it takes to download it must be there already.

        Args:
            request_id: which.
            owner: who has built it.
            done: what came of it.
            quota: bytes that all archives of its licence may have together.

        Returns:
            False when it would go beyond the quota, or is not ``owner``'s any more: nothing was changed.
        """
        now = self._now()
        with unavailable_as_such(), self._engine.begin() as connection:
            owned = select(Request.licence_id).where(_is_owned(request_id, owner))
            licence_id = connection.scalar(owned)
            if licence_id is None:
                return False
            _lock_licence(connection, licence_id)
            if _held_bytes(connection, now, licence_id) + done.bytes > quota:
                return False
            values = {**done._asdict(), "status": "SUCCESS", "completed_at": now, "percent": 100, **_NO_LEASE}
            return bool(connection.execute(update(Request).where(_is_owned(request_id, owner)).values(values)).rowcount)

    def fail(self, request_id: str, owner: str, message: str) -> bool:
        """End a request badly; the message is for who asked."""
        return self._change(_is_owned(request_id, owner), _failed(message, self._now()))

    def reopen(self, request_id: str, tag: str) -> bool:
        """Have a finished request built anew whose archive, of this tag, is not what it should be any more."""
        finished = and_(Request.id == request_id, Request.status == "SUCCESS", Request.tag == tag)
        return self._change(finished, _AGAIN)

    def expire(self) -> int:
        """End the requests whose time is over, and forget those of long ago; return how many have expired."""
        now = self._now()
        over = and_(Request.status == "SUCCESS", Request.expires_at <= now)
        former = and_(Request.status.in_(_OPEN), ~_OWN)
        forgotten = and_(Request.status.not_in(_OPEN), Request.submitted_at < now - REMEMBERED, ~_is_live(now))
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(update(Request).where(former).values(**_failed("the licence was revoked", now)))
            connection.execute(delete(Request).where(forgotten))
            return int(connection.execute(update(Request).where(over).values(status="EXPIRED")).rowcount)

    def finished(self, *, limit: int, after: str = "") -> Sequence[RequestRow]:
        """Return ``limit`` requests at the most that can be downloaded, by id, those after ``after``."""
        done = and_(Request.status == "SUCCESS", Request.expires_at > self._now(), Request.id > after)
        query = select(*_COLUMNS).where(done).order_by(Request.id).limit(limit)
        with unavailable_as_such(), self._engine.connect() as connection:
            return [self._row(row) for row in connection.execute(query)]

    def live_tags(self, request_ids: Iterable[str]) -> dict[str, str]:
        """Return the tags of those of these requests whose files are needed: being built, or to be downloaded."""
        query = select(Request.id, Request.tag).where(Request.id.in_(list(request_ids)), _is_live(self._now()))
        with unavailable_as_such(), self._engine.connect() as connection:
            return {row.id: row.tag for row in connection.execute(query) if row.tag is not None}

    def held_bytes(self, licence_id: int | None = None) -> int:
        """Return the bytes of all archives that can be downloaded, of a licence or of all."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return _held_bytes(connection, self._now(), licence_id)

    def count_open(self) -> int:
        """Return how many requests wait or are built."""
        query = select(func.count()).select_from(Request).where(Request.status.in_(_OPEN))
        with unavailable_as_such(), self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def _same(self, connection: Connection, licence_id: int, ask: Ask) -> RequestRow | None:
        same = and_(Request.licence_id == licence_id, Request.ask_hash == _hash(ask), _OWN)
        query = select(*_COLUMNS).where(same, _is_live(self._now())).order_by(Request.submitted_at).limit(1)
        row = connection.execute(query).one_or_none()
        return None if row is None else self._row(row)

    def _change(self, which: Any, values: dict[str, Any]) -> bool:
        with unavailable_as_such(), self._engine.begin() as connection:
            return bool(connection.execute(update(Request).where(which).values(**values)).rowcount)

    def _row(self, row: Row[*tuple[Any, ...]]) -> RequestRow:
        values = {name: getattr(row, name) for name in _NAMES}
        said = values["ask"]
        first, last = date.fromisoformat(said["from"]), date.fromisoformat(said["to"])
        values["ask"] = Ask(said["dataset"], said["resource"], first, last, variant_from(said["variant"]))
        if row.status == "SUCCESS" and row.expires_at <= self._now():
            values["status"] = "EXPIRED"
        return RequestRow(**values)


def _lock_licence(connection: Connection, licence_id: int) -> None:
    """Keep others from changing what requests a licence has until the transaction ends."""
    connection.execute(select(Licence.id).where(Licence.id == licence_id).with_for_update())


def _is_live(now: datetime) -> ColumnElement[bool]:
    return or_(Request.status.in_(_OPEN), and_(Request.status == "SUCCESS", Request.expires_at > now))


def _is_left(now: datetime) -> ColumnElement[bool]:
    """Its builder has not renewed its lease."""
    return and_(Request.status == "PROCESSING", Request.lease_until <= now)


def _is_waiting(now: datetime) -> ColumnElement[bool]:
    return and_(or_(Request.status == "SUBMITTED", _is_left(now)), _OWN)


def _is_owned(request_id: str, owner: str) -> ColumnElement[bool]:
    return and_(Request.id == request_id, Request.status == "PROCESSING", Request.lease_owner == owner)


def _failed(message: str, now: datetime) -> dict[str, Any]:
    return {"status": "FAILED", "completed_at": now, "message": message, **_NO_LEASE}


def _held_bytes(connection: Connection, now: datetime, licence_id: int | None) -> int:
    query = select(func.sum(Request.bytes)).where(Request.status == "SUCCESS", Request.expires_at > now)
    if licence_id is not None:
        query = query.where(Request.licence_id == licence_id)
    return int(connection.scalar(query) or 0)


def _hash(ask: Ask) -> bytes:
    return hashlib.sha256(json.dumps(ask.as_dict(), sort_keys=True).encode()).digest()
