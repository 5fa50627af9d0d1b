"""One writer of a table at a time, for changes that are seldom."""

from __future__ import annotations

from sqlalchemy import Connection, text

from midstream.registry.models import Base


def lock(connection: Connection, table: type[Base]) -> None:
    """Keep other writers, not readers, from a table until the transaction ends."""
    if connection.dialect.name == "postgresql":  # a transaction of SQLite has locked the whole file
        connection.execute(text(f"LOCK TABLE {table.__tablename__} IN SHARE ROW EXCLUSIVE MODE"))
