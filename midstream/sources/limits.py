"""Time limits and read-only transactions of a database that is a source: what each database has for them."""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from midstream.sources.errors import SourceCode, SourceError

_CONNECT_S = 10
_GRACE_S = 5.0
"""How long a database has to keep the limit by itself, before its connection is cut."""
_CANCELLED = "57014"  # PostgreSQL: query_canceled, as it does at statement_timeout
_LOOK_S = 1.0
_STEPS = 10_000  # of SQLite's machine between two looks at the clock

_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return what the driver is to be given besides the URL, whose own options count.

    Raises:
        SourceError: there is no such SQLite file; to connect would make one.
    """
    if url.get_backend_name() == "sqlite":
        if not url.database or not Path(url.database).is_file():
            raise SourceError(SourceCode.SOURCE_UNAVAILABLE, f"there is no file {url.database or ''}")
        return {"timeout": _CONNECT_S}
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        given = {"connect_timeout": _CONNECT_S, **_KEEPALIVES}
        return {name: value for name, value in given.items() if name not in url.query}
    return {}


class StatementLimit:
    """The time that a statement may work for its next rows."""

    def __init__(self, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self._end_s = math.inf
        self.cut = False

    def renew(self) -> None:
        """Begin anew: the database is asked for something."""
        self._end_s = time.monotonic() + self.timeout_ms / 1000

    def rest(self) -> None:
        """Count no time: nothing is asked."""
        self._end_s = math.inf

    @property
    def left_s(self) -> float:
        """Seconds that are left, negative when more have passed."""
        return self._end_s - time.monotonic()

    def passed_with(self, error: BaseException | None) -> bool:
        """Whether an error of the driver is that of a statement that took too long."""
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        interrupted = isinstance(error, sqlite3.OperationalError) and str(error) == "interrupted"
        return self.cut or state == _CANCELLED or interrupted

    def error(self) -> SourceError:
        """Return the error of a statement that took too long."""
        message = f"the query took longer than statement_timeout_ms, which is {self.timeout_ms}"
        return SourceError(SourceCode.SOURCE_TIMEOUT, message)


def begin_limited(connection: Connection, limit: StatementLimit) -> None:
    """Begin a transaction that cannot write, of one snapshot, with the statement limit, where the database has such."""
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        connection.execute(text(f"SET LOCAL statement_timeout = {limit.timeout_ms:d}"))
        connection.execute(text("SET LOCAL TIME ZONE 'UTC'"))
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        connection.execute(text("PRAGMA query_only = ON"))
        driver.set_progress_handler(lambda: limit.left_s < 0, _STEPS)
        connection.execute(text("BEGIN"))


class Watchdog:
    """Cuts the connection of a server that has stopped answering: drivers wait for it without end."""

    def __init__(self, limit: StatementLimit) -> None:
        self._limit = limit
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def guard(self, connection: Connection) -> None:
        """Watch a connection from now on, where its driver shows its socket."""
        descriptor = getattr(connection.connection.driver_connection, "fileno", None)
        if descriptor is None:
            return
        # A descriptor of our own: the driver's may be another file by the time it is cut.
        own = socket.socket(fileno=os.dup(descriptor()))
        self._thread = threading.Thread(target=self._watch, args=(own,), name="source-watchdog", daemon=True)
        self._thread.start()

    def _watch(self, own: socket.socket) -> None:
        with own:
            while not self._done.wait(min(_LOOK_S, max(0.0, self._limit.left_s + _GRACE_S))):
                if self._limit.left_s + _GRACE_S <= 0:
                    self._limit.cut = True
                    with suppress(OSError):  # it is closed already
                        own.shutdown(socket.SHUT_RDWR)
                    return
