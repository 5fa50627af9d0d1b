"""What administrators did: one row an act, written in the transaction that does it, never changed.

A row holds no secret. An object that is a person's id gives way to its pseudonym when that person is erased; all else
of a row stays, which the database itself sees to (``migrations/versions/m0008_admin_log.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import structlog
from sqlalchemy import Connection, Engine, delete, event, insert, select, update
from sqlalchemy.orm import Session

from midstream.logs import get_logger
from midstream.registry.engine import unavailable_as_such
from midstream.registry.models import AdminLog
from midstream.request_ids import current_request_id

MAX_PAGE = 1_000
KEPT = timedelta(days=400)
"""How long a row is kept."""

OBJECT_CHARS = 300

Outcome = Literal["done", "begun", "failed"]

_log = get_logger(__name__)


class Actor(NamedTuple):
    """Who acts: an operator's credential, a user of the operating system, or a process of our own."""

    kind: Literal["credential", "system_user", "process"]
    name: str
    address: str
    """From where: an internet address, or a machine's name."""


class Act(NamedTuple):
    """A row of the log."""

    number: int
    at: datetime
    actor_kind: str
    actor: str
    address: str
    action: str
    object: str
    details: dict[str, Any]
    outcome: str
    request_id: str


_NOBODY = Actor("process", "midstream", "")
_actor: ContextVar[Actor] = ContextVar("actor", default=_NOBODY)


def act_as(actor: Actor) -> None:
    """Say who does what this task, or this process, does from now on."""
    _actor.set(actor)


def note(
    transaction: Connection | Session, action: str, object_: str, /, outcome: Outcome = "done", **details: Any
) -> None:
    """Write an act in the transaction that does it; the log tells of it as that is committed, of none rolled back.

    Args:
        transaction: the one that does it.
        action: what, such as ``credential.create``.
        object_: on what, such as ``credential/app-1``; a person's id stands nowhere else in the row.
        outcome: of an act outside of the registry, ``begun`` before and ``done`` or ``failed`` after it.
        details: JSON; neither a secret nor a person's id.
    """
    actor = _actor.get()
    values = {
        "at": datetime.now(UTC),
        "actor_kind": actor.kind,
        "actor": actor.name[:128],
        "address": actor.address[:128],
        "action": action,
        "object": object_[:OBJECT_CHARS],
        "details": details,
        "outcome": outcome,
        "request_id": current_request_id(),
    }
    connection = transaction.connection() if isinstance(transaction, Session) else transaction
    connection.execute(insert(AdminLog).values(**values))
    if structlog.is_configured():  # a command prints what it was asked for, and nothing else
        told = {name: value for name, value in values.items() if name not in ("at", "request_id")}
        event.listen(connection, "commit", lambda _: _log.info("admin.act", **told), once=True)


def note_alone(engine: Engine, action: str, object_: str, /, outcome: Outcome = "done", **details: Any) -> None:
    """Write an act that is done outside of the registry. See :func:`note`.

    Raises:
        RegistryUnavailable: it could not be written.
    """
    with unavailable_as_such(), engine.begin() as connection:
        note(connection, action, object_, outcome, **details)


def read_acts(engine: Engine, *, limit: int, before: int | None = None, since: datetime | None = None) -> Sequence[Act]:
    """Return ``limit`` acts at the most, the newest first: those numbered below ``before``, not older than ``since``.

    Raises:
        RegistryUnavailable: as well.
    """
    query = select(*(getattr(AdminLog, name) for name in Act._fields))
    if before is not None:
        query = query.where(AdminLog.number < before)
    if since is not None:
        query = query.where(AdminLog.at >= since)
    with unavailable_as_such(), engine.connect() as connection:
        rows = connection.execute(query.order_by(AdminLog.number.desc()).limit(min(limit, MAX_PAGE)))
        return [Act(*row) for row in rows]


def forget_object(connection: Connection, object_: str, instead: str) -> None:
    """Put another name in the place of an object's in every row."""
    connection.execute(update(AdminLog).where(AdminLog.object == object_).values(object=instead))


def prune_acts(engine: Engine) -> int:
    """Delete the acts past their time; return how many.

    Raises:
        RegistryUnavailable: it could not be done.
    """
    with unavailable_as_such(), engine.begin() as connection:
        return int(connection.execute(delete(AdminLog).where(AdminLog.at < datetime.now(UTC) - KEPT)).rowcount)
