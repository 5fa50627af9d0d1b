"""Giving a device something to do: a command, a licence."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.changes import note_device
from midstream.registry.fleet.errors import FleetError, NotThereError
from midstream.registry.fleet.tables import Command, Device, License


def give(engine: Engine, row: Command | License, waiting: Select[int], most: int, what: str) -> None:
    """Add a row for its device, unless ``most`` wait for it already, as ``waiting`` counts them.

    Raises:
        NotThereError: there is no such device.
        FleetError: too many wait for it.
        RegistryUnavailable: it cannot be done now.
    """
    try:
        with unavailable_as_such(), Session(engine, expire_on_commit=False) as session, session.begin():
            if session.get(Device, row.device_id) is None:
                raise NotThereError("There is no such device")
            if (session.scalar(waiting) or 0) >= most:
                raise FleetError(f"{most} {what} wait for the device already")
            session.add(row)
            note_device(session, row.device_id)
            what_of_it: dict[str, Any] = {"command": row.name} if isinstance(row, Command) else {"action": row.action}
            note(session, f"{row.__tablename__}.give", f"device/{row.device_id}", id=row.id, **what_of_it)
    except IntegrityError:  # the device was removed meanwhile
        raise NotThereError("There is no such device") from None
