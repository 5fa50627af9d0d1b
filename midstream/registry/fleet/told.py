"""What devices tell besides their telemetry: events and diagnostic files, of each device the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.orm import Session

from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.errors import NotThereError
from midstream.registry.fleet.tables import Dump, Event

MAX_EVENTS = 100
"""Of one device."""

MAX_DUMPS = 5
"""Of one device."""


@dataclass(frozen=True, slots=True)
class EventInfo:
    """What a device told of."""

    content: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class DumpInfo:
    """A diagnostic file of a device."""

    id: str
    checksum: str
    """SHA-256, hex."""
    size_bytes: int
    at: datetime


class Told:
    """The events and diagnostic files of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_event(self, device_id: str, content: Mapping[str, Any]) -> None:
        """Keep an event of a device that is there; the oldest of too many go."""
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            session.add(Event(device_id=device_id, content=dict(content), at=datetime.now(UTC)))
            session.flush()
            last = (
                select(Event.number)
                .where(Event.device_id == device_id)
                .order_by(Event.number.desc())
                .offset(MAX_EVENTS)
                .limit(1)
            )
            number = session.scalar(last)
            if number is not None:
                session.execute(delete(Event).where(Event.device_id == device_id, Event.number <= number))

    def events(self, device_id: str) -> Sequence[EventInfo]:
        """Return the events of a device, newest first."""
        query = select(Event).where(Event.device_id == device_id).order_by(Event.number.desc())
        with unavailable_as_such(), Session(self._engine) as session:
            return [EventInfo(row.content, row.at) for row in session.scalars(query)]

    def add_dump(self, device_id: str, dump: DumpInfo, max_total_bytes: int) -> list[str]:
        """Keep a diagnostic file, whose bytes are in their place, of a device that is there.

        Returns:
            The ids of those that go for it: the device's oldest beyond :data:`MAX_DUMPS`, and the oldest of all devices
            while all together are more than ``max_total_bytes``.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            session.add(
                Dump(
                    id=dump.id,
                    device_id=device_id,
                    checksum=dump.checksum,
                    size_bytes=dump.size_bytes,
                    at=dump.at,
                )
            )
            session.flush()
            own = select(Dump.id).where(Dump.device_id == device_id).order_by(Dump.number.desc()).offset(MAX_DUMPS)
            gone = list(session.scalars(own))
            session.execute(delete(Dump).where(Dump.id.in_(gone)))
            too_many = (session.scalar(select(func.sum(Dump.size_bytes))) or 0) - max_total_bytes
            if too_many > 0:
                for id_, size in session.execute(select(Dump.id, Dump.size_bytes).order_by(Dump.number)).all():
                    if too_many <= 0 or id_ == dump.id:
                        break
                    session.execute(delete(Dump).where(Dump.id == id_))
                    gone.append(id_)
                    too_many -= size
            return gone

    def dumps(self, device_id: str) -> Sequence[DumpInfo]:
        """Return the diagnostic files of a device, newest first."""
        query = select(Dump).where(Dump.device_id == device_id).order_by(Dump.number.desc())
        with unavailable_as_such(), Session(self._engine) as session:
            return [_info(row) for row in session.scalars(query)]

    def dump(self, device_id: str, dump_id: str) -> DumpInfo:
        """Return a diagnostic file of a device.

        Raises:
            NotThereError: it has no such one.
        """
        with unavailable_as_such(), Session(self._engine) as session:
            row = session.scalar(select(Dump).where(Dump.id == dump_id, Dump.device_id == device_id))
            if row is None:
                raise NotThereError("The device has no such dump")
            return _info(row)


def _info(row: Dump) -> DumpInfo:
    return DumpInfo(row.id, row.checksum, row.size_bytes, row.at)
