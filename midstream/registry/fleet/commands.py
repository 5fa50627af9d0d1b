"""Commands: given by operators, done by devices, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.changes import note_device
from midstream.registry.fleet.errors import FleetError, NotThereError
from midstream.registry.fleet.giving import give
from midstream.registry.fleet.tables import Command

PENDING, IN_PROGRESS, DONE, FAILED = "pending", "in_progress", "done", "failed"
UNFINISHED = (PENDING, IN_PROGRESS)
MAX_UNFINISHED = 1_000
"""Of one device: it has been away for long, or does none."""

_FROM = {IN_PROGRESS: (PENDING,), DONE: UNFINISHED, FAILED: UNFINISHED}
"""Which status may become which."""


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """A command."""

    id: str
    device_id: str
    name: str
    parameters: Mapping[str, Any]
    status: str
    message: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Commands:
    """The commands of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def give(self, device_id: str, name: str, parameters: Mapping[str, Any]) -> CommandInfo:
        """Give a device a command, to be done after all that it was given before.

        Raises:
            NotThereError: there is no such device.
            FleetError: too many wait for it.
        """
        row = Command(
            id=str(uuid4()),
            device_id=device_id,
            name=name,
            parameters=dict(parameters),
            status=PENDING,
            message="",
            created_at=datetime.now(UTC),
        )
        waiting = select(func.count()).where(Command.device_id == device_id, Command.status.in_(UNFINISHED))
        give(self._engine, row, waiting, MAX_UNFINISHED, "commands")
        return _info(row)

    def oldest(self, device_id: str) -> CommandInfo | None:
        """Return the oldest command of a device that has not ended, None when there is none. It stays as it is."""
        with unavailable_as_such(), Session(self._engine) as session:
            row = session.scalar(_unfinished(device_id))
            return None if row is None else _info(row)

    def report(self, device_id: str, status: str, message: str = "", command_id: str | None = None) -> None:
        """Move a command on; of several equal reports, one does.

        Args:
            device_id: whose it is.
            status: in_progress, done or failed.
            message: what the device says of it.
            command_id: which one; None for the oldest that has not ended.

        Raises:
            FleetError: it is not in a status from which it can become this one, or this is no status.
            NotThereError: the device has no such command.
        """
        before = _FROM.get(status)
        if before is None:
            raise FleetError("status must be in_progress, done or failed")
        now = datetime.now(UTC)
        values: dict[str, Any] = {"status": status, "message": message}
        values["started_at" if status == IN_PROGRESS else "ended_at"] = now
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            if command_id is None:
                row = session.scalar(_unfinished(device_id))
                if row is None:
                    raise FleetError("There is no command that has not ended")
                command_id = row.id
            moved = session.execute(
                update(Command)
                .where(Command.id == command_id, Command.device_id == device_id, Command.status.in_(before))
                .values(**values)
            )
            if moved.rowcount:  # type: ignore[attr-defined]
                note_device(session, device_id)
                return
            current = session.scalar(
                select(Command.status).where(Command.id == command_id, Command.device_id == device_id)
            )
            if current is None:
                raise NotThereError("The device has no such command")
            raise FleetError(f"A command that is {current} cannot become {status}")

    def history(self, device_id: str, *, before: int | None = None, limit: int = 1_000) -> Sequence[CommandInfo]:
        """Return the commands of a device, newest first."""
        query = select(Command).where(Command.device_id == device_id)
        if before is not None:
            query = query.where(Command.number < before)
        with unavailable_as_such(), Session(self._engine) as session:
            return [_info(row) for row in session.scalars(query.order_by(Command.number.desc()).limit(limit))]


def _unfinished(device_id: str) -> Any:
    return (
        select(Command)
        .where(Command.device_id == device_id, Command.status.in_(UNFINISHED))
        .order_by(Command.number)
        .limit(1)
    )


def _info(row: Command) -> CommandInfo:
    return CommandInfo(
        id=row.id,
        device_id=row.device_id,
        name=row.name,
        parameters=row.parameters,
        status=row.status,
        message=row.message,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
