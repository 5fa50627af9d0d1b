"""The tables of jobs. Every change of them is a migration in ``midstream/registry/migrations/versions``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from midstream.registry.models import Base, UtcDateTime

REQUEST_ID_CHARS = 256
TYPE_CHARS = 32
DIGEST_CHARS = 24


class SyncJob(Base):
    """A sync, a deletion or an erasure: what is to be done, how far it is, what came of it."""

    __tablename__ = "sync_jobs"
    __table_args__ = (
        UniqueConstraint("credential", "request_hash", name="uq_sync_jobs_credential_request_hash"),
        Index("ix_sync_jobs_created_at", "created_at"),
        Index("ix_sync_jobs_status_not_before", "status", "not_before"),
        Index("ix_sync_jobs_resweep_at", "resweep_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """A UUID; of two, the younger one is the greater."""
    credential: Mapped[str] = mapped_column(String(128))
    """Key of who asked; "" for the command line."""
    request_id: Mapped[str | None] = mapped_column(String(REQUEST_ID_CHARS))
    """As it was sent, its beginning."""
    request_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """SHA-256 of what it was sent for and the whole request id."""
    kind: Mapped[str] = mapped_column(String(16))
    type: Mapped[str] = mapped_column(String(TYPE_CHARS))
    ids: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """None: all of the type."""
    options: Mapped[dict[str, bool]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str] = mapped_column(Text)
    """The step that it is at, or was at last."""
    objects: Mapped[int] = mapped_column(BigInteger)
    done: Mapped[int] = mapped_column(BigInteger)
    """Of ``total``, in this step."""
    total: Mapped[int] = mapped_column(BigInteger)
    """0: not known."""
    step_seconds: Mapped[float] = mapped_column(Float)
    """Since this step began."""
    changed: Mapped[dict[str, int]] = mapped_column(JSON)
    """Rows by table."""
    report: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    response: Mapped[dict[str, bool] | None] = mapped_column(JSON(none_as_null=True))
    """Whether there is an object of each id that was asked for."""
    error: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancel_requested: Mapped[bool] = mapped_column(Boolean)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime)
    resweep_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the events are looked through once more; None: never again."""


class SyncRepair(Base):
    """Who repairs stored events now; there is one row. Nobody runs a job meanwhile."""

    __tablename__ = "sync_repair"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SyncSource(Base):
    """How far the source of a type has been read."""

    __tablename__ = "sync_sources"

    type: Mapped[str] = mapped_column(String(TYPE_CHARS), primary_key=True)
    watermark: Mapped[str] = mapped_column(Text)
    """Of the last sync that read all there was, in the source's own terms."""
    synced_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ErasedId(Base):
    """That an object was erased: whatever comes of it later is refused, or stored under a pseudonym."""

    __tablename__ = "erased"

    digest: Mapped[str] = mapped_column(String(DIGEST_CHARS), primary_key=True)
    """Of its type and id, with a key; see :mod:`midstream.erased`."""
    type: Mapped[str] = mapped_column(String(TYPE_CHARS))
    job_id: Mapped[str] = mapped_column(String(36))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
