"""Academies, their users, and which assignment records there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "academies",
        sa.Column("id", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_academies"),
    )
    op.create_table(
        "academy_users",
        sa.Column("id", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_academy_users"),
    )
    op.create_table(
        "academy_user_tokens",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["academy_users.id"], name="fk_academy_user_tokens_user_id_academy_users"),
        sa.PrimaryKeyConstraint("id", name="pk_academy_user_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_academy_user_tokens_token_hash"),
    )
    op.create_index("ix_academy_user_tokens_user_id", "academy_user_tokens", ["user_id"])
    op.create_table(
        "academy_grants",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("academy_id", sa.BigInteger(), nullable=False),
        sa.Column("capability", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["academy_users.id"], name="fk_academy_grants_user_id_academy_users"),
        sa.ForeignKeyConstraint(["academy_id"], ["academies.id"], name="fk_academy_grants_academy_id_academies"),
        sa.PrimaryKeyConstraint("user_id", "academy_id", "capability", name="pk_academy_grants"),
    )
    op.create_index("ix_academy_grants_academy_id", "academy_grants", ["academy_id"])
    op.create_table(
        "assignment_records",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("academy_id", sa.BigInteger(), nullable=False),
        sa.Column("asset_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("asset_slug", sa.Text(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_assignment_records"),
        sa.UniqueConstraint("academy_id", "asset_hash", "user_id", name="uq_assignment_records_academy_id_asset_user"),
    )
    op.create_table(
        "assignment_writers",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("published", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.Column("claimed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_assignment_writers"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "assignment_writers",
        "assignment_records",
        "academy_grants",
        "academy_user_tokens",
        "academy_users",
        "academies",
    ):
        op.drop_table(table)
