"""Brings the registry to the newest schema: idempotent, and safe when several processes do it at once."""

from __future__ import annotations

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, exists, select
from sqlalchemy.exc import DatabaseError

from midstream.registry.engine import open_engine, registry_url, unavailable_as_such
from midstream.registry.errors import RegistryError, RegistryUnavailable
from midstream.registry.keyfile import ensure_key, key_path
from midstream.registry.models import Credential
from midstream.settings import Settings

_SCRIPTS = "midstream.registry:migrations"
_ADVISORY_LOCK = 0x6D69647374  # any number of our own: PostgreSQL's advisory locks are named by numbers


def migrate(settings: Settings, *, wait_ms: int = 30_000) -> None:
    """Create or upgrade the registry's tables, and create the key file of an empty registry.

    Args:
        settings: where the registry is.
        wait_ms: longest wait for others that hold the database's lock.

    Raises:
        RegistryUnavailable: the database cannot be reached, or stayed locked.
        RegistryError: the registry is newer than this program, or holds secrets without its key file.
    """
    if registry_url(settings).get_backend_name() == "sqlite":
        _create_sqlite_file(settings, wait_ms)
    engine = open_engine(settings, wait_ms=wait_ms)
    try:
        with unavailable_as_such(), engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            _upgrade(connection)
            if not key_path(settings).exists():
                if connection.scalar(select(exists(select(Credential.id)))):
                    raise RegistryError(
                        f"{key_path(settings)} is missing but the registry holds credentials: restore it"
                    )
                ensure_key(settings)
    finally:
        engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RegistryError(f"the registry is of another version of Midstream: {error}") from None


def _create_sqlite_file(settings: Settings, wait_ms: int) -> None:
    """Switch the file to WAL, so that readers and a writer never wait for each other.

    SQLite does not use its busy timeout for this switch, so it is tried until the time is up.
    """
    database = registry_url(settings).database
    assert database is not None  # noqa: S101  registry_url() refuses a SQLite URL without a file
    path = Path(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise RegistryUnavailable(f"{path} cannot be created: {error.strerror}") from None
    engine: Engine = create_engine(
        registry_url(settings),
        connect_args={"timeout": 1.0},
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
    )
    deadline = time.monotonic() + wait_ms / 1000
    try:
        while True:
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except DatabaseError as error:
                if "locked" not in str(error.orig) or time.monotonic() >= deadline:
                    raise RegistryUnavailable(f"{path} cannot be used: {error.orig}") from None
                time.sleep(0.05)
    finally:
        engine.dispose()
