"""Devices: registered by themselves, seen, claimed, revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, bindparam, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.changes import note_device
from midstream.registry.fleet.errors import FleetError, NotThereError, TooOftenError
from midstream.registry.fleet.keys import hash_key, new_key
from midstream.registry.fleet.tables import Device, Model

INFO_UPDATES_AN_HOUR = 10
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a device says of itself at first."""

    sn: str
    firmware_version: str
    hardware_key: str = field(repr=False)
    cloud_id: str | None = None
    mac: str | None = None
    name: str = ""
    sub_model: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """A new device, and its access key: shown this once."""

    id: str
    access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InfoChange:
    """What a device says has changed of itself; None: nothing was said of it."""

    firmware_version: str | None = None
    name: str | None = None
    sub_model: str | None = None
    details: Mapping[str, Any] | None = None
    config_version: int | None = None
    """Which configuration it has."""
    space_version: int | None = None
    """Which space it knows of."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device as operators see it."""

    id: str
    sn: str
    name: str
    model: str
    sub_model: str
    firmware_version: str
    cloud_id: str | None
    mac: str | None
    parent_id: str | None
    details: Mapping[str, Any]
    info_version: int
    config_version: int
    applied_version: int
    space: Mapping[str, Any] | None
    space_version: int
    said_config_version: int | None
    said_space_version: int | None
    interval_s: int
    created_at: datetime
    last_seen_at: datetime | None
    revoked_at: datetime | None


class Devices:
    """The devices of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, wanted: Registration) -> Registered:
        """Create a device.

        Raises:
            NotThereError: no model has this hardware key.
            FleetError: the model has a device of this serial number already, or the parent is not there.
        """
        key, id_, now = new_key(), str(uuid4()), datetime.now(UTC)
        try:
            with unavailable_as_such(), Session(self._engine) as session, session.begin():
                model_id = session.scalar(
                    select(Model.id).where(Model.hardware_key_hash == hash_key(wanted.hardware_key))
                )
                if model_id is None:
                    raise NotThereError("Unknown hardware key")
                if session.scalar(select(Device.id).where(Device.model_id == model_id, Device.sn == wanted.sn)):
                    raise FleetError("Device is already registered")
                if wanted.parent_id is not None and session.get(Device, wanted.parent_id) is None:
                    raise FleetError("There is no device parent_id")
                session.add(
                    Device(
                        id=id_,
                        model_id=model_id,
                        sn=wanted.sn,
                        key_hash=hash_key(key),
                        cloud_id=wanted.cloud_id,
                        mac=wanted.mac,
                        name=wanted.name,
                        sub_model=wanted.sub_model,
                        firmware_version=wanted.firmware_version,
                        details=dict(wanted.details),
                        parent_id=wanted.parent_id,
                        info_version=1,
                        info_updates=[],
                        space=None,
                        space_version=0,
                        config_name="",
                        config={},
                        config_version=0,
                        applied_version=0,
                        created_at=now,
                        last_seen_at=now,
                    )
                )
        except IntegrityError:  # two at once
            raise FleetError("Device is already registered") from None
        return Registered(id_, key)

    def change_info(self, device_id: str, change: InfoChange) -> int:
        """Keep what a device says of itself; return the version of its info.

        Raises:
            TooOftenError: ten times in the last hour already.
            NotThereError: there is no such device.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = session.scalar(select(Device).where(Device.id == device_id).with_for_update())
            if row is None:
                raise NotThereError("There is no such device")
            now = datetime.now(UTC)
            lately = [moment for moment in row.info_updates if datetime.fromisoformat(moment) > now - _HOUR]
            if len(lately) >= INFO_UPDATES_AN_HOUR:
                raise TooOftenError(f"Only {INFO_UPDATES_AN_HOUR} updates an hour")
            row.info_updates = [*lately, now.isoformat()]
            if change.firmware_version is not None:
                row.firmware_version = change.firmware_version
            if change.name is not None:
                row.name = change.name
            if change.sub_model is not None:
                row.sub_model = change.sub_model
            if change.details is not None:
                row.details = dict(change.details)
            if change.config_version is not None:
                row.said_config_version = change.config_version
            if change.space_version is not None:
                row.said_space_version = change.space_version
            row.info_version += 1
            note_device(session, device_id)
            return row.info_version

    def claim(self, device_id: str, space: Mapping[str, Any]) -> int:
        """Say what a device was claimed for; return the version of that, from 1.

        Raises:
            NotThereError: there is no such device.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = session.scalar(select(Device).where(Device.id == device_id).with_for_update())
            if row is None:
                raise NotThereError("There is no such device")
            row.space = dict(space)
            row.space_version += 1
            note_device(session, device_id)
            note(session, "device.claim", f"device/{device_id}", version=row.space_version)
            return row.space_version

    def revoke(self, device_id: str) -> None:
        """End a device's access. Ending it again changes nothing.

        Raises:
            NotThereError: there is no such device.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            ended = session.execute(
                update(Device)
                .where(Device.id == device_id, Device.revoked_at.is_(None))
                .values(revoked_at=datetime.now(UTC))
            )
            if ended.rowcount:  # type: ignore[attr-defined]
                note_device(session, device_id)
                note(session, "device.revoke", f"device/{device_id}")
            elif session.get(Device, device_id) is None:
                raise NotThereError("There is no such device")

    def touch(self, seen: Mapping[str, datetime]) -> None:
        """Keep when devices were last seen; an older moment changes nothing."""
        if not seen:
            return
        statement = (
            update(Device.__table__)  # type: ignore[arg-type]
            .where(
                Device.id == bindparam("device"),
                or_(Device.last_seen_at.is_(None), Device.last_seen_at < bindparam("moment")),
            )
            .values(last_seen_at=bindparam("moment"))
        )
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(statement, [{"device": id_, "moment": moment} for id_, moment in sorted(seen.items())])

    def get(self, device_id: str) -> DeviceInfo:
        """Return a device.

        Raises:
            NotThereError: there is no such device.
        """
        with unavailable_as_such(), Session(self._engine) as session:
            found = session.execute(
                select(Device, Model.name, Model.interval_s).join(Model).where(Device.id == device_id)
            ).one_or_none()
            if found is None:
                raise NotThereError("There is no such device")
            return _info(*found)

    def page(self, *, text: str = "", model: str = "", after: str = "", limit: int) -> Sequence[DeviceInfo]:
        """Return devices in the order of their ids, those after ``after``.

        Args:
            text: stands in the name, or begins the serial number; "" for any.
            model: of this model; "" for any.
            after: the last id of the page before.
            limit: how many at the most.
        """
        query = select(Device, Model.name, Model.interval_s).join(Model).where(Device.id > after)
        if text:
            query = query.where(
                or_(Device.name.contains(text, autoescape=True), Device.sn.startswith(text, autoescape=True))
            )
        if model:
            query = query.where(Model.name == model)
        with unavailable_as_such(), Session(self._engine) as session:
            return [_info(*found) for found in session.execute(query.order_by(Device.id).limit(limit))]


def _info(row: Device, model: str, interval_s: int) -> DeviceInfo:
    return DeviceInfo(
        id=row.id,
        sn=row.sn,
        name=row.name,
        model=model,
        sub_model=row.sub_model,
        firmware_version=row.firmware_version,
        cloud_id=row.cloud_id,
        mac=row.mac,
        parent_id=row.parent_id,
        details=row.details,
        info_version=row.info_version,
        config_version=row.config_version,
        applied_version=row.applied_version,
        space=row.space,
        space_version=row.space_version,
        said_config_version=row.said_config_version,
        said_space_version=row.said_space_version,
        interval_s=interval_s,
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
        revoked_at=row.revoked_at,
    )
