"""The academies' tables. Every change of them is a migration in ``midstream/registry/migrations/versions``.

Nothing but a grant and a writer is ever deleted: what was found once is there.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from midstream.registry.models import Base, UtcDateTime

NAME_CHARS = 256
CAPABILITY_CHARS = 64
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts in INTEGER PRIMARY KEY alone


class Academy(Base):
    """An academy, under the platform's own number or one of ours."""

    __tablename__ = "academies"

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    status: Mapped[str] = mapped_column(String(16))
    """active, inactive or deleted."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class User(Base):
    """A user, under the platform's own number or one of ours."""

    __tablename__ = "academy_users"

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UserToken(Base):
    """What proves that a request is a user's."""

    __tablename__ = "academy_user_tokens"

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    """SHA-256."""
    user_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("academy_users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Grant(Base):
    """What a user may do in an academy."""

    __tablename__ = "academy_grants"

    user_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("academy_users.id"), primary_key=True)
    academy_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("academies.id"), primary_key=True, index=True)
    capability: Mapped[str] = mapped_column(String(CAPABILITY_CHARS), primary_key=True)


class Record(Base):
    """That there is an assignment record, and the last number that a write of it was given; its fields are in
    ClickHouse. Who asks for one checks academy and user before."""

    __tablename__ = "assignment_records"
    __table_args__ = (
        UniqueConstraint("academy_id", "asset_hash", "user_id", name="uq_assignment_records_academy_id_asset_user"),
    )

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    academy_id: Mapped[int] = mapped_column(BigInteger)
    asset_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of the slug in UTF-8: a slug is too long for PostgreSQL's index."""
    asset_slug: Mapped[str] = mapped_column(Text)
    user_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    """The highest that was given to a write."""
    created_us: Mapped[int] = mapped_column(BigInteger)
    """Microseconds since 1970: both databases reckon with them in an upsert."""
    confirmed: Mapped[bool] = mapped_column(Boolean)
    """False: no write of it is known to have been stored; it is no record yet."""


class Writer(Base):
    """A process that writes assignment records, for who publishes what it left unpublished."""

    __tablename__ = "assignment_writers"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published: Mapped[int] = mapped_column(BigInteger)
    """How far its writes were published, by its own count; 0: nothing yet."""
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    claimed: Mapped[bool] = mapped_column(Boolean)
    """Another process publishes for it now: it is held for dead."""
