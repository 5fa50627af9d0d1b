"""Requests for downloads that take long."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

_TABLE = "exhaust_requests"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        _TABLE,
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("licence_id", sa.BigInteger(), nullable=False),
        sa.Column("ask", sa.JSON(), nullable=False),
        sa.Column("ask_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("submitted_at", sa.DateTime(), nullable=False),
        sa.Column("completed_at", sa.DateTime(), nullable=True),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("days_built", sa.Integer(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("tag", sa.String(64), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(64), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["licence_id"], ["exhaust_licences.id"], name="fk_exhaust_requests_licence_id_exhaust_licences"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_exhaust_requests"),
    )
    op.create_index("ix_exhaust_requests_licence_id_submitted_at", _TABLE, ["licence_id", "submitted_at"])
    op.create_index("ix_exhaust_requests_status_submitted_at", _TABLE, ["status", "submitted_at"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table(_TABLE)
