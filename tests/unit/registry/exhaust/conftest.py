"""The datasets' registry, in SQLite and in PostgreSQL."""

from tests.support.registry import engine, settings

__all__ = ["engine", "settings"]
