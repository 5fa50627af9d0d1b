"""Runs the migrations on the connection, and in the transaction, of ``midstream.registry.migrate``."""

from __future__ import annotations

from alembic import context

from midstream.registry.academies import tables as academies  # noqa: F401  so that the metadata has them
from midstream.registry.exhaust import tables as exhaust  # noqa: F401
from midstream.registry.fleet import tables as fleet  # noqa: F401
from midstream.registry.models import Base
from midstream.registry.sync import tables as sync  # noqa: F401

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # Alembic holds SQLite to have none; with the driver's own BEGIN off it has
)
context.run_migrations()
