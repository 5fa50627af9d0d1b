"""What has changed of devices, so that processes that remember something of them can forget it.

A change is written in the transaction that makes it. Numbers are given when a row is written and become visible when
its transaction ends: in PostgreSQL a lower one may come after a higher one. Whoever follows them has to look back.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.orm import Session

from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.tables import Change

KEPT = timedelta(minutes=10)
"""How long a change can be read. Whoever has not looked for as long must hold everything for changed."""


class Changed(NamedTuple):
    """What a change was of: one device, or all of a model."""

    number: int
    device_id: str | None
    model_id: int | None


def note_device(session: Session, device_id: str) -> None:
    """Say in this transaction that something changed of a device."""
    session.add(Change(device_id=device_id, at=datetime.now(UTC)))


def note_model(session: Session, model_id: int) -> None:
    """Say in this transaction that something changed for all devices of a model."""
    session.add(Change(model_id=model_id, at=datetime.now(UTC)))


def read_changes(connection: Connection, after: int, limit: int) -> list[Changed]:
    """Return the changes with a number above ``after``, newest first."""
    rows = connection.execute(
        select(Change.number, Change.device_id, Change.model_id)
        .where(Change.number > after)
        .order_by(Change.number.desc())
        .limit(limit)
    )
    return [Changed(*row) for row in rows]


def forget_changes(engine: Engine) -> None:
    """Delete what is older than anybody has to read.

    Raises:
        RegistryUnavailable: it could not be.
    """
    with unavailable_as_such(), engine.begin() as connection:
        connection.execute(delete(Change).where(Change.at < datetime.now(UTC) - KEPT))
