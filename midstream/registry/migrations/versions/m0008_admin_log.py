"""What administrators did, in a table that takes rows and gives none back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

_FIXED = "number, at, actor_kind, actor, address, action, details, outcome, request_id"
"""All but ``object``, in which a person's id gives way to a pseudonym."""

_SQLITE = (
    f"CREATE TRIGGER admin_log_fixed BEFORE UPDATE OF {_FIXED} ON admin_log "
    "BEGIN SELECT RAISE(ABORT, 'admin_log takes no change'); END",
    "CREATE TRIGGER admin_log_kept BEFORE DELETE ON admin_log WHEN OLD.at > datetime('now', '-30 days') "
    "BEGIN SELECT RAISE(ABORT, 'admin_log keeps its rows for 30 days'); END",
)
_POSTGRESQL = (
    "CREATE FUNCTION admin_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'admin_log takes no change, and keeps its rows for 30 days'; END $$",
    f"CREATE TRIGGER admin_log_fixed BEFORE UPDATE OF {_FIXED} ON admin_log "
    "FOR EACH ROW EXECUTE FUNCTION admin_log_refuse()",
    "CREATE TRIGGER admin_log_kept BEFORE DELETE ON admin_log FOR EACH ROW "
    "WHEN (OLD.at > (now() AT TIME ZONE 'utc') - interval '30 days') EXECUTE FUNCTION admin_log_refuse()",
    "CREATE TRIGGER admin_log_whole BEFORE TRUNCATE ON admin_log "
    "FOR EACH STATEMENT EXECUTE FUNCTION admin_log_refuse()",
)


def upgrade() -> None:
    """Create the table, and what keeps its rows."""
    op.create_table(
        "admin_log",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor_kind", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("address", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object", sa.String(300), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_admin_log"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_admin_log_at", "admin_log", ["at"])
    op.create_index("ix_admin_log_object", "admin_log", ["object"])
    for statement in _POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("admin_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION admin_log_refuse()")
