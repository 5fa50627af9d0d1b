"""The fleet's tables. Every change of them is a migration in ``midstream/registry/migrations/versions``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from midstream.registry.models import Base, UtcDateTime

ID_CHARS = 36  # a UUID as text
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts in INTEGER PRIMARY KEY alone


class Model(Base):
    """A kind of device, as its maker sells it."""

    __tablename__ = "device_models"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    hardware_key_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    interval_s: Mapped[int]
    """Seconds between two reports of a healthy device."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Device(Base):
    """A registered device."""

    __tablename__ = "devices"
    __table_args__ = (UniqueConstraint("model_id", "sn", name="uq_devices_model_id_sn"),)

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("device_models.id"))
    sn: Mapped[str] = mapped_column(String(256), index=True)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    cloud_id: Mapped[str | None] = mapped_column(String(256))
    mac: Mapped[str | None] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(256), index=True)
    sub_model: Mapped[str] = mapped_column(String(256))
    firmware_version: Mapped[str] = mapped_column(String(128))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    parent_id: Mapped[str | None] = mapped_column(String(ID_CHARS))
    info_version: Mapped[int]
    info_updates: Mapped[list[str]] = mapped_column(JSON)
    """Moments (ISO 8601) of the last hour's updates by the device itself."""
    space: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """What it was claimed for; None: by nobody."""
    space_version: Mapped[int]
    """0: never claimed."""
    config_name: Mapped[str] = mapped_column(String(256))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    config_version: Mapped[int]
    """0: none was ever set."""
    config_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    applied: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """The configuration that the device said it applied."""
    applied_version: Mapped[int]
    applied_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    said_config_version: Mapped[int | None]
    """What the device said it has; None: it has said nothing."""
    said_space_version: Mapped[int | None]


class Command(Base):
    """What a device is to do, once."""

    __tablename__ = "device_commands"
    __table_args__ = (Index("ix_device_commands_device_id_number", "device_id", "number"),)

    number: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    """First in, first out."""
    id: Mapped[str] = mapped_column(String(ID_CHARS), unique=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    name: Mapped[str] = mapped_column(String(256))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class License(Base):
    """A licence that a device is to add, remove or update."""

    __tablename__ = "device_licenses"
    __table_args__ = (Index("ix_device_licenses_device_id_number", "device_id", "number"),)

    number: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(ID_CHARS), unique=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    data: Mapped[str] = mapped_column(Text)
    signature: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(16))
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    state: Mapped[str | None] = mapped_column(String(16))
    """None until the device has reported."""
    error: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reported_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LicenseReport(Base):
    """What a device said of a licence, each time."""

    __tablename__ = "device_license_reports"

    number: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    license_id: Mapped[str] = mapped_column(ForeignKey("device_licenses.id"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class File(Base):
    """A file for all devices of a model: firmware. Its bytes lie in the folder of device files."""

    __tablename__ = "device_files"

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("device_models.id"), index=True)
    name: Mapped[str] = mapped_column(String(256))
    description: Mapped[str] = mapped_column(Text)
    file_type: Mapped[str] = mapped_column(String(32))
    version: Mapped[str] = mapped_column(String(128))
    checksum: Mapped[str] = mapped_column(String(64))
    """SHA-256, hex."""
    signature: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    rollout_percent: Mapped[int]
    """Of the model's devices, how many are offered it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Event(Base):
    """What a device told of, the newest ones only."""

    __tablename__ = "device_events"
    __table_args__ = (Index("ix_device_events_device_id_number", "device_id", "number"),)

    number: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    content: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class Dump(Base):
    """A diagnostic file of a device, the newest ones only. Its bytes lie in the folder of device files."""

    __tablename__ = "device_dumps"
    __table_args__ = (Index("ix_device_dumps_device_id_number", "device_id", "number"),)

    number: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(ID_CHARS), unique=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    checksum: Mapped[str] = mapped_column(String(64))
    """SHA-256, hex."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class Change(Base):
    """That something which processes remember has changed: of one device, or for all of a model."""

    __tablename__ = "device_changes"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  a number is never given twice, deleted or not

    number: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    device_id: Mapped[str | None] = mapped_column(String(ID_CHARS))
    model_id: Mapped[int | None]
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
