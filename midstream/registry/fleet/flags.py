"""What the reply to a report says: whether there is something for the device to fetch."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Engine, bindparam, exists, select

from midstream.registry.engine import unavailable_as_such
from midstream.registry.fleet.commands import PENDING
from midstream.registry.fleet.files import FIRMWARE, newest_firmware
from midstream.registry.fleet.tables import Command, Device, File, License


class Flags(NamedTuple):
    """Of one device: what its key is, and what a reply says."""

    model_id: int
    key_hash: bytes
    revoked: bool
    config_version: int
    command: bool
    new_licenses: bool
    info_version: int
    latest_fw_version: str | None
    latest_fw_file_id: str | None
    space_data_version: int


_DEVICE = select(
    Device.model_id,
    Device.key_hash,
    Device.revoked_at,
    Device.config_version,
    exists().where(Command.device_id == Device.id, Command.status == PENDING).label("command"),
    exists().where(License.device_id == Device.id, License.state.is_(None)).label("new_licenses"),
    Device.info_version,
    Device.space_version,
).where(Device.id == bindparam("device"))
_FIRMWARE = select(File.id, File.version, File.rollout_percent).where(
    File.model_id == bindparam("model"), File.file_type == FIRMWARE
)
_OWNER = select(Device.id).where(Device.key_hash == bindparam("hash"))


def read_flags(engine: Engine, device_id: str) -> Flags | None:
    """Return a device's flags, None when there is no such device.

    Raises:
        RegistryUnavailable: it cannot be told now.
    """
    with unavailable_as_such(), engine.connect() as connection:
        return _read(connection, device_id)


def owner_of_key(engine: Engine, key_hash: bytes) -> str | None:
    """Return the device that a key is of, None when it is nobody's.

    Raises:
        RegistryUnavailable: it cannot be told now.
    """
    with unavailable_as_such(), engine.connect() as connection:
        owner: str | None = connection.scalar(_OWNER, {"hash": key_hash})
        return owner


def _read(connection: Connection, device_id: str) -> Flags | None:
    row = connection.execute(_DEVICE, {"device": device_id}).one_or_none()
    if row is None:
        return None
    newest = newest_firmware(connection.execute(_FIRMWARE, {"model": row.model_id}), device_id)
    return Flags(
        model_id=row.model_id,
        key_hash=row.key_hash,
        revoked=row.revoked_at is not None,
        config_version=row.config_version,
        command=bool(row.command),
        new_licenses=bool(row.new_licenses),
        info_version=row.info_version,
        latest_fw_version=newest.version if newest is not None else None,
        latest_fw_file_id=newest.id if newest is not None else None,
        space_data_version=row.space_version,
    )
