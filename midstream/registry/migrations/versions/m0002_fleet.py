"""The fleet: models, devices, and what they fetch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "device_models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("hardware_key_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("interval_s", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_device_models"),
        sa.UniqueConstraint("hardware_key_hash", name="uq_device_models_hardware_key_hash"),
        sa.UniqueConstraint("name", name="uq_device_models_name"),
    )
    op.create_table(
        "device_files",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("file_type", sa.String(32), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("rollout_percent", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["device_models.id"], name="fk_device_files_model_id_device_models"),
        sa.PrimaryKeyConstraint("id", name="pk_device_files"),
    )
    op.create_index("ix_device_files_model_id", "device_files", ["model_id"])
    op.create_table(
        "devices",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("sn", sa.String(256), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("cloud_id", sa.String(256), nullable=True),
        sa.Column("mac", sa.String(64), nullable=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("sub_model", sa.String(256), nullable=False),
        sa.Column("firmware_version", sa.String(128), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("parent_id", sa.String(36), nullable=True),
        sa.Column("info_version", sa.Integer(), nullable=False),
        sa.Column("info_updates", sa.JSON(), nullable=False),
        sa.Column("space", sa.JSON(), nullable=True),
        sa.Column("space_version", sa.Integer(), nullable=False),
        sa.Column("config_name", sa.String(256), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("config_at", sa.DateTime(), nullable=True),
        sa.Column("applied", sa.JSON(), nullable=True),
        sa.Column("applied_version", sa.Integer(), nullable=False),
        sa.Column("applied_at", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["device_models.id"], name="fk_devices_model_id_device_models"),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
        sa.UniqueConstraint("key_hash", name="uq_devices_key_hash"),
        sa.UniqueConstraint("model_id", "sn", name="uq_devices_model_id_sn"),
    )
    op.create_index("ix_devices_name", "devices", ["name"])
    op.create_index("ix_devices_sn", "devices", ["sn"])
    op.create_table(
        "device_commands",
        sa.Column("number", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("device_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_commands_device_id_devices"),
        sa.PrimaryKeyConstraint("number", name="pk_device_commands"),
        sa.UniqueConstraint("id", name="uq_device_commands_id"),
    )
    op.create_index("ix_device_commands_device_id_number", "device_commands", ["device_id", "number"])
    op.create_table(
        "device_licenses",
        sa.Column("number", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("device_id", sa.String(36), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("state", sa.String(16), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("reported_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name="fk_device_licenses_device_id_devices"),
        sa.PrimaryKeyConstraint("number", name="pk_device_licenses"),
        sa.UniqueConstraint("id", name="uq_device_licenses_id"),
    )
    op.create_index("ix_device_licenses_device_id_number", "device_licenses", ["device_id", "number"])
    op.create_table(
        "device_license_reports",
        sa.Column("number", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("license_id", sa.String(36), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["license_id"], ["device_licenses.id"], name="fk_device_license_reports_license_id_device_licenses"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_device_license_reports"),
    )
    op.create_index("ix_device_license_reports_license_id", "device_license_reports", ["license_id"])


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "device_license_reports",
        "device_licenses",
        "device_commands",
        "devices",
        "device_files",
        "device_models",
    ):
        op.drop_table(table)
