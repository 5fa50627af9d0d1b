"""INSERT .. ON CONFLICT, which both databases have in the same words."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.dialects import postgresql, sqlite

from midstream.registry.models import Base


def insert(engine: Engine, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that can say what to do when the row is there."""
    return postgresql.insert(table) if engine.dialect.name == "postgresql" else sqlite.insert(table)
