"""What devices told of, and what has changed of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.add_column("devices", sa.Column("said_config_version", sa.Integer(), nullable=True))
    op.add_column("devices", sa.Column("said_space_version", sa.Integer(), nullable=True))
    op.create_table(
        "device_events",
        sa.Column("number", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(36), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_events_device_id_devices"),
        sa.PrimaryKeyConstraint("number", name="pk_device_events"),
    )
    op.create_index("ix_device_events_device_id_number", "device_events", ["device_id", "number"])
    op.create_table(
        "device_dumps",
        sa.Column("number", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("device_id", sa.String(36), nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_dumps_device_id_devices"),
        sa.PrimaryKeyConstraint("number", name="pk_device_dumps"),
        sa.UniqueConstraint("id", name="uq_device_dumps_id"),
    )
    op.create_index("ix_device_dumps_device_id_number", "device_dumps", ["device_id", "number"])
    op.create_table(
        "device_changes",
        sa.Column("number", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(36), nullable=True),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_device_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_device_changes_at", "device_changes", ["at"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("device_changes", "device_dumps", "device_events"):
        op.drop_table(table)
    op.drop_column("devices", "said_space_version")
    op.drop_column("devices", "said_config_version")
