"""Alembic's environment of the registry. :func:`midstream.registry.migrate.migrate` runs it."""
