"""How the registry's database is opened: SQLite in WAL mode, or PostgreSQL, each wait with a limit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from midstream.registry.errors import RegistryError, RegistryUnavailable
from midstream.settings import Settings


def registry_url(settings: Settings) -> URL:
    """Return the registry's URL.

    Raises:
        RegistryError: it is no URL, or of a database that is not supported.
    """
    try:
        url = make_url(settings.registry_url)
    except (
        ArgumentError,
        ValueError,
    ):  # ValueError: the port is no number; its message may hold a part of the password
        raise RegistryError("MIDSTREAM_REGISTRY is no SQLAlchemy URL, such as sqlite:////path/registry.db") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise RegistryError("MIDSTREAM_REGISTRY takes a sqlite or a postgresql URL")
    if url.get_backend_name() == "sqlite" and not url.database:
        raise RegistryError("MIDSTREAM_REGISTRY takes a SQLite file: every process reads the same one")
    return url


def open_engine(settings: Settings, *, wait_ms: int = 5_000) -> Engine:
    """Open the registry for reading and writing; a transaction takes SQLite's write lock when it begins.

    Taking the lock at once keeps a transaction from reading, finding the lock taken and failing half way.

    Args:
        settings: where the registry is.
        wait_ms: longest wait for a lock, a connection or a statement.
    """
    engine = _open(settings, wait_ms, {})
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver must not open transactions by itself
            connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def open_reader(settings: Settings, *, wait_ms: int) -> Engine:
    """Open the registry for single reads, each a transaction of its own. See :func:`open_engine`."""
    return _open(settings, wait_ms, {"isolation_level": "AUTOCOMMIT"})


def _open(settings: Settings, wait_ms: int, options: dict[str, Any]) -> Engine:
    url = registry_url(settings)
    if url.get_backend_name() == "sqlite":
        connect_args: dict[str, Any] = {"timeout": wait_ms / 1000}
    else:
        connect_args = {
            "connect_timeout": max(1, wait_ms // 1000),
            "options": f"-c statement_timeout={wait_ms} -c lock_timeout={wait_ms}",
        }
        options = {**options, "pool_pre_ping": True}
    try:
        engine = create_engine(
            url,
            connect_args=connect_args,
            hide_parameters=True,
            pool_timeout=max(1, wait_ms / 1000),
            **options,
        )
    except (ArgumentError, ImportError) as error:
        raise RegistryError(f"MIDSTREAM_REGISTRY cannot be used: {error}") from None
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "do_connect", _see_file)
    return engine


def _see_file(_dialect: Any, _record: Any, arguments: list[Any], _options: Any) -> None:
    """Only :func:`midstream.registry.migrate.migrate` makes the file, which nobody else may read; SQLite would too."""
    if not Path(arguments[0]).exists():
        raise sqlite3.OperationalError("unable to open database file")


@contextmanager
def unavailable_as_such() -> Iterator[None]:
    """Turn what a database raises that is out of reach, locked or without tables into RegistryUnavailable.

    The database's own message is kept, its statement and parameters are not.
    """
    try:
        yield
    except IntegrityError:
        raise  # a conflict of what was asked, not of the database
    except (DatabaseError, InterfaceError) as error:
        raise RegistryUnavailable(f"the registry cannot be used: {error.orig}") from None
    except PoolTimeoutError:
        raise RegistryUnavailable("the registry cannot be used: all connections are busy") from None
    except SQLAlchemyError as error:
        raise RegistryUnavailable(f"the registry cannot be used: {type(error).__name__}") from None
