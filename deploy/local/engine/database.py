"""The ClickHouse engine of this process: a bounded pool of threads, and a connection for each query.

A connection is cheap (0.2 ms) and holds what belongs to one query: its database, settings and parameters. They
disappear with it, so that no query sees another's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from deploy.local.engine.broken import SET_ASIDE
from deploy.local.engine.config import write_config
from deploy.local.engine.errors import (
    LIMIT_EXCEEDED,
    QUERY_WAS_CANCELLED,
    SYNTAX_ERROR,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    from_engine,
    refused,
)
from deploy.local.engine.request import DATABASE, MAX_FORM_BYTES, Query, read_form
from deploy.local.engine.statement import Kind, Statement, parse
from deploy.local.engine.upload import Upload
from midstream.logs import get_logger
from midstream.settings import Settings

_KILL_INTERVAL_S = 0.1
_KILL_TRIES = 100
_CLOSE_TIMEOUT_S = 10.0

log = get_logger(__name__)


class EngineStartError(Exception):
    """The engine cannot be opened; the message names the folder and what to do."""


@dataclass(slots=True)
class Outcome:
    """What a query did. ``body`` is a command's answer; a SELECT's goes through its pipe."""

    body: bytes = b""
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    elapsed_ns: int = 0


@dataclass(slots=True)
class Task:
    """One query on its way through the pool.

    Attributes:
        tag: Names the query in the engine's list of processes.
        format: Format of the answer, known once the query runs.
        cancelled: Nobody waits for it any more.
    """

    tag: str = field(default_factory=lambda: secrets.token_hex(12))
    format: str = ""
    kind: Kind = Kind.COMMAND
    cancelled: bool = False


class Database:
    """The engine over one folder."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.home / "clickhouse"
        self.uploads = self.path / "uploads"
        self.version = ""
        self._settings = settings
        self._limit = settings.engine_threads + settings.engine_queue
        self._admitted = 0
        self._closing = False
        self._connect: Callable[[str], Any]
        self._base: Any = None
        self._lock_fd = -1
        self._pool = ThreadPoolExecutor(settings.engine_threads, thread_name_prefix="query")
        self._control = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._running: set[Future[Outcome]] = set()

    def open(self) -> None:
        """Lock the folder, start the engine, create the database.

        Raises:
            EngineStartError: the folder is in use or cannot be used.
        """
        if set("?&#") & set(str(self.path)):
            raise EngineStartError(f"MIDSTREAM_HOME must not contain ?, & or #: {self.path}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            shutil.rmtree(self.uploads, ignore_errors=True)  # of a process that was killed
            self.uploads.mkdir()
            config = write_config(
                self.path / "config",
                backups=self._settings.engine_backups_folder,
                memory_bytes=self._settings.engine_memory_bytes,
                query_timeout_ms=self._settings.engine_query_timeout_ms,
            )
        except OSError as error:
            raise EngineStartError(f"The folder {self.path} cannot be used: {error.strerror or error}.") from None
        os.environ["TZ"] = "UTC"  # the engine reads its time zone from here, when it is loaded
        from chdb.state.sqlitelike import connect

        self._connect = connect
        try:
            self._base = connect(f"{self.path}?config-file={config}")
            self._base.query(f"CREATE DATABASE IF NOT EXISTS `{DATABASE}`", "TabSeparated")
            self.version = self._base.query("SELECT version()", "TabSeparated").bytes().decode().strip()
        except RuntimeError as error:
            raise EngineStartError(
                f"The ClickHouse engine cannot open {self.path}; another program may have it open. It says: {error}"
            ) from None

    def broken_parts(self) -> list[str]:
        """Return the names of the parts that the engine has set aside as broken."""
        rows: bytes = self._base.query(SET_ASIDE, "TabSeparated").bytes()
        return [line.replace("\t", ".") for line in rows.decode(errors="replace").splitlines()]

    def _lock(self) -> None:
        """Hold the folder as long as this process lives: the system gives the lock back, after kill -9 too."""
        self._lock_fd = os.open(self.path / "front.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock_fd, 20).decode("ascii", "replace").strip() or "unknown"
            raise EngineStartError(
                f"The folder {self.path} is in use by another local ClickHouse engine (process {holder}). "
                "Stop it, or set MIDSTREAM_HOME to another folder."
            ) from None
        os.truncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a query in, from before its body is received until it is answered.

        Raises:
            QueryError: code 202, as many run and wait as may.
        """
        if self._admitted >= self._limit:
            raise refused(
                TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many simultaneous queries. Maximum: {self._limit}; try again."
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    def submit(self, task: Task, query: Query, upload: Upload, path: str, write_fd: int) -> Future[Outcome]:
        """Run a query in the pool. Closes ``upload`` and ``write_fd`` when it is done.

        Args:
            task: Where the format and cancelling are seen.
            query: What was asked for.
            upload: The whole body.
            path: File that a SELECT's rows are written to.
            write_fd: Held open until the outcome is known.
        """
        future = self._pool.submit(self._run, task, query, upload, path, write_fd)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def cancel(self, task: Task, future: Future[Outcome]) -> None:
        """Give up a query whose client left; return when it has ended.

        A SELECT is stopped; an INSERT or a command that began goes on to its end.
        """
        task.cancelled = True
        loop = asyncio.get_running_loop()
        tries = 0
        while not future.done():
            if task.kind is Kind.SELECT and tries < _KILL_TRIES:  # it may not be in the list of processes yet
                tries += 1
                await loop.run_in_executor(self._control, self._kill, f"Settings['log_comment'] = '{task.tag}'")
            await asyncio.sleep(_KILL_INTERVAL_S)

    def _kill(self, condition: str) -> None:
        with suppress(RuntimeError):
            self._base.query(f"KILL QUERY WHERE {condition} ASYNC", "TabSeparated")

    def close(self) -> bool:
        """End what runs and close the engine; False when a query would not end."""
        self._closing = True
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._running and time.monotonic() < deadline:
            self._kill("query NOT LIKE 'KILL QUERY%'")
            wait(set(self._running), timeout=0.5)
        ended = not self._running
        self._control.shutdown(wait=False)
        self._pool.shutdown(wait=False)
        if ended and self._base is not None:
            self._base.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        return ended

    # In the pool's threads

    def _run(self, task: Task, query: Query, upload: Upload, path: str, write_fd: int) -> Outcome:
        body = upload
        try:
            self._check_wanted(task)
            if query.content_encoding:
                body = upload.inflated(query.content_encoding)
            return self._run_text(task, query, body, path)
        except RuntimeError as error:
            raise from_engine(error, self.version) from None
        finally:
            body.close()
            os.close(write_fd)

    def _check_wanted(self, task: Task) -> None:
        if task.cancelled or self._closing:
            raise refused(QUERY_WAS_CANCELLED, "Query was cancelled.")

    def _run_text(self, task: Task, query: Query, body: Upload, path: str) -> Outcome:
        sql, settings = query.sql, query.settings
        if query.form:
            if body.bytes > MAX_FORM_BYTES:
                raise refused(LIMIT_EXCEEDED, f"The form is larger than {MAX_FORM_BYTES} bytes.")
            sql, settings = read_form(query, body.head(MAX_FORM_BYTES))
            rest = 0
        else:
            rest = body.bytes
            sql += b"\n" if sql and rest else b""
        limit = query.max_query_bytes
        text = sql + (body.head(limit) if rest else b"")
        statement = parse(text, query.default_format)
        if statement.kind is not Kind.INSERT and len(sql) + rest > limit:
            raise refused(SYNTAX_ERROR, "Max query size exceeded (can be increased with the `max_query_size` setting).")
        task.format, task.kind = statement.format, statement.kind
        connection = self._connect(f"{self.path}?database={DATABASE}&log_comment={task.tag}")
        try:
            self._prepare(connection, query, settings)
            if statement.kind is Kind.INSERT:
                begun, start = text[statement.data_start : len(sql)], max(0, statement.data_start - len(sql))
                return self._insert(connection, statement, begun, body if rest else None, start)
            self._check_wanted(task)
            if statement.kind is Kind.SELECT:
                return _outcome(connection.query(statement.into(path), statement.format))
            result = connection.query(statement.sql, statement.format)
            outcome = _outcome(result)
            outcome.body = bytes(result.bytes())
            return outcome
        finally:
            connection.close()

    def _prepare(self, connection: Any, query: Query, settings: dict[str, str]) -> None:
        """Give a new connection what belongs to its query."""
        if query.database != DATABASE:
            connection.query(f"USE {_quoted(query.database, '`')}", "TabSeparated")
        ours = {"log_comment", "max_query_size"} | ({"readonly"} if query.readonly else set())
        changes = [f"{name} = {_quoted(value, chr(39))}" for name, value in settings.items() if name not in ours]
        if query.readonly:
            changes.append("readonly = 2")
        if changes:
            connection.query("SET " + ", ".join(changes), "TabSeparated")

    def _insert(self, connection: Any, statement: Statement, begun: bytes, body: Upload | None, start: int) -> Outcome:
        """Run an INSERT over data that is here whole, as one statement.

        Not by chdb's ``send_insert``: in chdb 4.4.0 it reports success when the insert fails after its data was parsed
        (a constraint, too many partitions, no space), and what was answered 200 would be nowhere.

        Args:
            connection: To the engine.
            statement: The INSERT.
            begun: What of its data stands in the ``query`` parameter.
            body: Holds the rest.
            start: Where in the body that begins.
        """
        path = None if begun or body is None else body.path_from(start)
        if path is not None:
            return self._insert_file(connection, statement, path)
        with closing(Upload(self.uploads)) as data:
            data.write(begun)
            for piece in body.chunks(start) if body is not None else ():
                data.write(piece)
            return self._insert_file(connection, statement, data.path)

    @staticmethod
    def _insert_file(connection: Any, statement: Statement, path: str) -> Outcome:
        source = f" FROM INFILE '{path}' COMPRESSION 'none' FORMAT {statement.format}"
        return _outcome(connection.query(statement.sql + source.encode(), "TabSeparated"))


def _outcome(result: Any) -> Outcome:
    return Outcome(
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
        result_bytes=result.bytes_read(),
        elapsed_ns=int(result.elapsed() * 1e9),
    )


def _quoted(text: str, mark: str) -> str:
    escaped = text.replace("\\", "\\\\").replace(mark, "\\" + mark)
    return f"{mark}{escaped}{mark}"
