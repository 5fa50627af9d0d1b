"""Datasets, licences and their rights, revisions of days."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "exhaust_datasets",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("declaration", sa.JSON(), nullable=False),
        sa.Column("declared_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_exhaust_datasets"),
    )
    op.create_table(
        "exhaust_licences",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.Column("last_used_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_exhaust_licences"),
        sa.UniqueConstraint("name", name="uq_exhaust_licences_name"),
        sa.UniqueConstraint("key_hash", name="uq_exhaust_licences_key_hash"),
    )
    op.create_table(
        "exhaust_rights",
        sa.Column("licence_id", sa.BigInteger(), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("rule", sa.String(32), nullable=False),
        sa.Column("resource", sa.String(128), nullable=False),
        sa.ForeignKeyConstraint(
            ["licence_id"], ["exhaust_licences.id"], name="fk_exhaust_rights_licence_id_exhaust_licences"
        ),
        sa.PrimaryKeyConstraint("licence_id", "dataset", "rule", "resource", name="pk_exhaust_rights"),
    )
    op.create_table(
        "exhaust_revisions",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("resource", sa.String(128), nullable=True),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_exhaust_revisions"),
    )
    op.create_index("ix_exhaust_revisions_dataset_day", "exhaust_revisions", ["dataset", "day"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("exhaust_revisions", "exhaust_rights", "exhaust_licences", "exhaust_datasets"):
        op.drop_table(table)
