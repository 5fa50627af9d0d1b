"""Jobs of data sync, how far sources have been read, and erased ids."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None

_JOBS = "sync_jobs"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        _JOBS,
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("credential", sa.String(128), nullable=False),
        sa.Column("request_id", sa.String(256), nullable=True),
        sa.Column("request_hash", sa.LargeBinary(32), nullable=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("ids", sa.JSON(), nullable=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("step_seconds", sa.Float(), nullable=False),
        sa.Column("changed", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("response", sa.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("lease_owner", sa.String(64), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("not_before", sa.DateTime(), nullable=False),
        sa.Column("resweep_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sync_jobs"),
        sa.UniqueConstraint("credential", "request_hash", name="uq_sync_jobs_credential_request_hash"),
    )
    op.create_index("ix_sync_jobs_created_at", _JOBS, ["created_at"])
    op.create_index("ix_sync_jobs_status_not_before", _JOBS, ["status", "not_before"])
    op.create_index("ix_sync_jobs_resweep_at", _JOBS, ["resweep_at"])
    op.create_table(
        "sync_repair",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lease_owner", sa.String(64), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sync_repair"),
    )
    op.create_table(
        "sync_sources",
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("watermark", sa.Text(), nullable=False),
        sa.Column("synced_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("type", name="pk_sync_sources"),
    )
    op.create_table(
        "erased",
        sa.Column("digest", sa.String(24), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_erased"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("erased", "sync_sources", "sync_repair", _JOBS):
        op.drop_table(table)
