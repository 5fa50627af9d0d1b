"""The tables of datasets. Every change of them is a migration in ``midstream/registry/migrations/versions``.

Nothing but rights, and requests that ended long ago, is ever deleted.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Date, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from midstream.registry.models import Base, UtcDateTime

DATASET_CHARS = 64
LICENCE_CHARS = 128
RESOURCE_CHARS = 128
RULE_CHARS = 32

_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts in INTEGER PRIMARY KEY alone


class DeclaredDataset(Base):
    """A dataset that was declared; ``D001`` is there without a row."""

    __tablename__ = "exhaust_datasets"

    name: Mapped[str] = mapped_column(String(DATASET_CHARS), primary_key=True)
    declaration: Mapped[dict[str, Any]] = mapped_column(JSON)
    declared_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """The last time that it changed."""


class Licence(Base):
    """Who may download: a partner's key."""

    __tablename__ = "exhaust_licences"

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(LICENCE_CHARS), unique=True)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    """SHA-256."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """To the minute."""


class Right(Base):
    """That a licence may download a resource of a dataset."""

    __tablename__ = "exhaust_rights"

    licence_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("exhaust_licences.id"), primary_key=True)
    dataset: Mapped[str] = mapped_column(String(DATASET_CHARS), primary_key=True)
    rule: Mapped[str] = mapped_column(String(RULE_CHARS), primary_key=True)
    """By which the dataset named its resources: under another rule the same text is somebody else."""
    resource: Mapped[str] = mapped_column(String(RESOURCE_CHARS), primary_key=True)
    """Canonical."""


class Revision(Base):
    """That a day of a dataset is not what it was: an erase."""

    __tablename__ = "exhaust_revisions"
    __table_args__ = (Index("ix_exhaust_revisions_dataset_day", "dataset", "day"),)

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    dataset: Mapped[str] = mapped_column(String(DATASET_CHARS))
    resource: Mapped[str | None] = mapped_column(String(RESOURCE_CHARS))
    """Canonical; None: of all resources."""
    day: Mapped[date] = mapped_column(Date)
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class Request(Base):
    """That a licence wants days built and kept for a while."""

    __tablename__ = "exhaust_requests"
    __table_args__ = (
        Index("ix_exhaust_requests_licence_id_submitted_at", "licence_id", "submitted_at"),
        Index("ix_exhaust_requests_status_submitted_at", "status", "submitted_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """A random UUID."""
    licence_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("exhaust_licences.id"))
    ask: Mapped[dict[str, Any]] = mapped_column(JSON)
    ask_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of ``ask``."""
    status: Mapped[str] = mapped_column(String(16))
    submitted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    days_built: Mapped[int] = mapped_column(Integer)
    events: Mapped[int] = mapped_column(BigInteger)
    percent: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the archive; 0 until it is there."""
    message: Mapped[str | None] = mapped_column(Text)
    """Why it failed."""
    tag: Mapped[str | None] = mapped_column(String(64))
    """Entity tag of the archive that is built, or was."""
    attempts: Mapped[int] = mapped_column(Integer)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
