"""Configurations: set by operators, fetched and applied by devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.changes import note_device
from midstream.registry.fleet.errors import FleetError, NotThereError
from midstream.registry.fleet.tables import Device


@dataclass(frozen=True, slots=True)
class Config:
    """A device's configuration. Version 0: none was ever set."""

    name: str
    version: int
    at: datetime | None
    content: Mapping[str, Any]


class Configs:
    """The configurations of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, device_id: str) -> Config:
        """Return what the device is to apply.

        Raises:
            NotThereError: there is no such device.
        """
        with unavailable_as_such(), Session(self._engine) as session:
            row = session.get(Device, device_id)
            if row is None:
                raise NotThereError("There is no such device")
            return Config(row.config_name, row.config_version, row.config_at, row.config)

    def set(self, device_id: str, name: str, content: Mapping[str, Any]) -> int:
        """Set what a device is to apply; return its version, from 1.

        Raises:
            NotThereError: there is no such device.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = session.scalar(select(Device).where(Device.id == device_id).with_for_update())
            if row is None:
                raise NotThereError("There is no such device")
            row.config_name, row.config = name, dict(content)
            row.config_version += 1
            row.config_at = datetime.now(UTC)
            note_device(session, device_id)
            note(session, "device_config.set", f"device/{device_id}", name=name, version=row.config_version)
            return row.config_version

    def report(self, device_id: str, version: int, content: Mapping[str, Any]) -> None:
        """Keep what a device says it applied. It moves no version: known firmware posts back what it fetched.

        Raises:
            FleetError: it is based on another version than the present one.
            NotThereError: there is no such device.
        """
        now = datetime.now(UTC)
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            kept = session.execute(
                update(Device)
                .where(Device.id == device_id, Device.config_version == version)
                .values(applied=dict(content), applied_version=version, applied_at=now)
            )
            if kept.rowcount:  # type: ignore[attr-defined]
                return
            current = session.scalar(select(Device.config_version).where(Device.id == device_id))
            if current is None:
                raise NotThereError("There is no such device")
            raise FleetError(f"Config version {version} is not the current one, which is {current}")
