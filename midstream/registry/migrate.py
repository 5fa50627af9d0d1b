"""Brings the registry to the newest schema: idempotent, and safe when several processes do it at once.

A registry that a newer version has migrated is left as it is: migrations only add what older versions need not know, so
that versions run side by side and a newer one can be rolled back (docs/upgrading.md).
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, exists, select
from sqlalchemy.exc import DatabaseError

from midstream.logs import get_logger
from midstream.registry.admin_log import note
from midstream.registry.engine import open_engine, open_reader, registry_url, unavailable_as_such
from midstream.registry.errors import RegistryError, RegistryUnavailable
from midstream.registry.keyfile import ensure_key, key_path
from midstream.registry.models import Credential
from midstream.settings import Settings

_SCRIPTS = "midstream.registry:migrations"
_REVISION = re.compile(r"\d{4}")
_ADVISORY_LOCK = 0x6D69647374  # any number of our own: PostgreSQL's advisory locks are named by numbers

_log = get_logger(__name__)


def migrate(settings: Settings, *, wait_ms: int = 30_000) -> None:
    """Create or upgrade the registry's tables, and create the key file of an empty registry.

    Args:
        settings: where the registry is.
        wait_ms: longest wait for others that hold the database's lock.

    Raises:
        RegistryUnavailable: the database cannot be reached, or stayed locked.
        RegistryError: the registry is of no version that is known, or holds secrets without its key file.
    """
    if registry_url(settings).get_backend_name() == "sqlite":
        _create_sqlite_file(settings, wait_ms)
    engine = open_engine(settings, wait_ms=wait_ms)
    try:
        with unavailable_as_such(), engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            before = _version(connection)
            _upgrade(connection)
            if (now := _version(connection)) != before:
                note(connection, "registry.migrate", "registry", before=before, now=now)
            if not key_path(settings).exists():
                if connection.scalar(select(exists(select(Credential.id)))):
                    raise RegistryError(
                        f"{key_path(settings)} is missing but the registry holds credentials: restore it"
                    )
                ensure_key(settings)
    finally:
        engine.dispose()


def revisions(settings: Settings, *, wait_ms: int) -> tuple[str, str]:
    """Return the revision that the registry is of ("" if of none), and the newest that this program knows.

    Raises:
        RegistryUnavailable: the database cannot be reached within ``wait_ms``, or is not there.
    """
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    newest = ScriptDirectory.from_config(config).get_current_head() or ""
    engine = open_reader(settings, wait_ms=wait_ms)
    try:
        with unavailable_as_such(), engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or "", newest
    finally:
        engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    found = MigrationContext.configure(connection).get_current_revision()
    newest = ScriptDirectory.from_config(config).get_current_head()
    if found is not None and newest is not None and _REVISION.fullmatch(found) and found > newest:
        _log.warning("registry.newer", revision=found, known=newest)
        return
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RegistryError(f"the registry is of another version of Midstream: {error}") from None


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


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
