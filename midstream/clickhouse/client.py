"""A client of ClickHouse over HTTP, the same for the local engine and for a server.

Nothing here retries by itself but :meth:`ClickHouse.insert_stream`, which repeats the identical body under the
identical token, so that an answer that was lost costs nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import urllib3
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError as DriverError

from midstream.faults import MEANINGS, Fault, tls_fault
from midstream.settings import Settings, SettingsError

if TYPE_CHECKING:
    import pyarrow as pa  # 26 MB, which who reads no Arrow tables goes without

# Refusals of the data itself, which no retry changes. Every other code is taken for trouble of the environment: to
# call good
# data bad would put valid events among the rejects. Names: ClickHouse's src/Common/ErrorCodes.cpp.
_DATA_CODES = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        469,  # VIOLATED_CONSTRAINT
    }
)
_FAULT_CODES = {
    192: Fault.LOGIN_REFUSED,  # UNKNOWN_USER
    193: Fault.LOGIN_REFUSED,  # WRONG_PASSWORD
    194: Fault.LOGIN_REFUSED,  # REQUIRED_PASSWORD
    497: Fault.NOT_ALLOWED,  # ACCESS_DENIED
    516: Fault.LOGIN_REFUSED,  # AUTHENTICATION_FAILED
}
_MAX_STATEMENTS = 64
_DROPPED_INSERTS = (
    "SELECT sum(value), toInt64(toUnixTimestamp(now())) - toInt64(uptime()) FROM system.events "
    "WHERE event = 'DuplicatedInsertedBlocks'"
)


class ClickHouseError(Exception):
    """ClickHouse did not do what was asked.

    Attributes:
        code: ClickHouse's error number; None when no answer was read (the outcome is then unknown).
        by_data: True when ClickHouse refused the data itself, so that a retry changes nothing.
        fault: why we were not let in; None for everything else.
    """

    def __init__(self, message: str, code: int | None, fault: Fault | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.fault = fault
        self.by_data = code in _DATA_CODES


Body = bytes | Sequence[bytes | memoryview]
"""What an insert sends, whole or in pieces."""


@dataclass(frozen=True, slots=True)
class Dsn:
    """A parsed ``http[s]://user:password@host:port/database``."""

    interface: str
    host: str
    port: int
    user: str
    password: str
    database: str

    def __repr__(self) -> str:
        return f"Dsn({self.interface}://{self.host}:{self.port}/{self.database})"  # never the password


def parse_dsn(dsn: str) -> Dsn:
    """Parse a DSN; the database defaults to ``midstream``.

    Raises:
        SettingsError: not of that form.
    """
    try:
        parts = urlsplit(dsn)
        port = parts.port
    except ValueError:  # its message may hold a part of the password
        raise SettingsError(
            "MIDSTREAM_CLICKHOUSE: no URL that can be read; in a user and password, write what is no letter or digit "
            "as %XX"
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError("MIDSTREAM_CLICKHOUSE: expected http[s]://user:password@host:port/database")
    return Dsn(
        parts.scheme,
        parts.hostname,
        port or (8443 if parts.scheme == "https" else 8123),
        unquote(parts.username or "default"),
        unquote(parts.password or ""),
        unquote(parts.path.strip("/")) or "midstream",
    )


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except DriverError as error:
        code = getattr(error, "code", None)
        raise _own_error(error, code if isinstance(code, int) else None) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _own_error(error, None) from error


def _own_error(error: Exception, code: int | None) -> ClickHouseError:
    if code is not None:
        return ClickHouseError(str(error), code, _FAULT_CODES.get(code))
    fault = tls_fault(error)
    if fault is not None:
        return ClickHouseError(f"{fault}: ClickHouse: {MEANINGS[fault]}: {error}", None, fault)
    return ClickHouseError(f"no answer from ClickHouse: {error}", None, Fault.UNREACHABLE)


@lru_cache(maxsize=_MAX_STATEMENTS)
def _insert_statement(table: str, columns: tuple[str, ...]) -> bytes:
    return f"INSERT INTO {table} ({', '.join(map(quote_identifier, columns))}) FORMAT ArrowStream\n".encode()


class ClickHouse:
    """A connection pool to one database. Threads may share it; every wait is bounded by ``clickhouse_timeout_ms``."""

    def __init__(self, client: Client, dsn: Dsn, *, is_cluster: bool = False, max_threads: int | None = None) -> None:
        self._client = client
        self.dsn = dsn
        self.is_cluster = is_cluster
        # Through a Distributed table an insert would return before the rows are on their shard, and one replica would
        # do.
        self._insert_settings = {"distributed_foreground_insert": 1, "insert_quorum": "auto"} if is_cluster else {}
        self._read_settings: dict[str, Any] = {"select_sequential_consistency": 1} if is_cluster else {}
        if max_threads is not None:
            self._read_settings["max_threads"] = max_threads

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        """Run a query; ``{name:Type}`` in it are bound from ``parameters``. Return all rows."""
        with _own_errors():
            result = self._client.query(sql, parameters=parameters, settings=self._read_settings).result_rows
            return cast("Sequence[tuple[Any, ...]]", result)

    def named_rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a query; return each row as a dict by column."""
        with _own_errors():
            return list(self._client.query(sql, parameters=parameters).named_results())

    def arrow(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        """Run a query; return an Arrow table."""
        with _own_errors():
            return self._client.query_arrow(sql, parameters=parameters, use_strings=True)

    def row_binary(self, sql: str, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Run a query; yield its result in ClickHouse's RowBinary format, in chunks of at most ``chunk_bytes``."""
        with _own_errors(), self._client.raw_stream(sql, fmt="RowBinary", settings=self._read_settings) as stream:
            while chunk := stream.read(chunk_bytes):
                yield chunk

    def stream(
        self,
        sql: str,
        parameters: dict[str, Any],
        form: str,
        settings: dict[str, Any],
        chunk_bytes: int = 1 << 18,
    ) -> Iterator[bytes]:
        """Run a query; yield its answer in a format of ClickHouse, in chunks of at most ``chunk_bytes``.

        A server may end an answer that failed half way as if it were whole: compare what came with what must.
        """
        settings = {**self._read_settings, **settings}
        with (
            _own_errors(),
            self._client.raw_stream(sql, parameters=parameters, fmt=form, settings=settings) as answer,
        ):
            while chunk := answer.read(chunk_bytes):
                yield chunk

    def command(self, sql: str, settings: dict[str, Any] | None = None, *, use_database: bool = True) -> Any:
        """Run a statement that returns at most one value."""
        with _own_errors():
            return self._client.command(sql, settings=settings, use_database=use_database)

    def insert_stream(
        self,
        table: str,
        columns: Sequence[str],
        body: Body,
        token: str,
        *,
        tries: int,
        before_try: Callable[[int], None],
    ) -> None:
        """Insert an Arrow IPC stream as one block under a deduplication token.

        Args:
            table: name of the table.
            columns: the stream's columns, in order.
            body: the Arrow IPC stream, whole or in pieces; every try sends these bytes.
            token: the same for the same rows into the same table, whoever inserts them and however often. "": the
                table needs none, since rows that are there twice count once; what was deleted can come again then.
            tries: number of tries.
            before_try: called with the number of tries already made; may raise to give up (a lease that has run out).

        Raises:
            ClickHouseError: the last try's error, or at once one that is ``by_data``.
        """
        settings = {
            # Since ClickHouse 26 `deduplicate_insert` goes before this: without a token the rows themselves are one.
            "insert_deduplicate": 1 if token else 0,
            "insert_deduplication_token": token or uuid.uuid4().hex,
            "async_insert": 0,  # the default since ClickHouse 26.2 is 1, which would re-batch the block
            "max_insert_threads": 1,
            "max_threads": 1,  # one block: another thread takes no work off, and is handed each step of it
            "input_format_parallel_parsing": 0,
            **self._insert_settings,
        }
        # In pieces. The driver would put bytes behind its statement, which copies them, and send them again by itself;
        # of what is no bytes it would make the statement a part of the URL, which urllib3 reads letter by letter.
        pieces = [_insert_statement(table, tuple(columns)), *([body] if isinstance(body, bytes) else body)]
        size = {"Content-Length": str(sum(len(piece) for piece in pieces))}
        delay_s = 0.1
        for attempt in range(tries):
            before_try(attempt)
            try:
                with _own_errors():
                    self._client.raw_insert(None, None, pieces, settings, transport_settings=size)  # type: ignore[arg-type]
                return
            except ClickHouseError as error:
                if error.by_data or attempt == tries - 1:
                    raise
            time.sleep(delay_s)
            delay_s = min(delay_s * 3, 5.0)

    def dropped_inserts(self) -> tuple[int, int] | None:
        """Return how many blocks the server has dropped since its start because it knew their token, and when that was
        (epoch seconds); None if it does not say. Unchanged over an insert, they prove that the insert was not
        dropped: without the start, a restart in between could hide one."""
        try:
            dropped, started_s = self.rows(_DROPPED_INSERTS)[0]
            return int(dropped), int(started_s)
        except ClickHouseError:
            return None

    def is_alive(self) -> bool:
        """Tell whether ClickHouse answers."""
        return bool(self._client.ping())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def open_client(
    settings: Settings, *, database: str | None = None, timeout_ms: int | None = None, max_threads: int | None = None
) -> ClickHouse:
    """Connect to the ClickHouse of the settings.

    ``max_threads``: how many threads of the server a query's :meth:`ClickHouse.rows` are read by; where each reads a
    few granules, one is faster than several.

    Raises:
        ClickHouseError: it does not answer, or refuses the credentials.
        SettingsError: the DSN is malformed.
    """
    dsn = parse_dsn(settings.clickhouse_dsn)
    timeout_s = (timeout_ms or settings.clickhouse_timeout_ms) / 1000
    with _own_errors():
        client = clickhouse_connect.get_client(
            interface=dsn.interface,
            host=dsn.host,
            port=dsn.port,
            username=dsn.user,
            password=dsn.password,
            database=dsn.database if database is None else database,
            ca_cert=str(settings.clickhouse_ca) if settings.clickhouse_ca else None,
            connect_timeout=min(5, timeout_s),
            send_receive_timeout=timeout_s,
            # Concurrent calls of one client raise when they share a session id.
            autogenerate_session_id=False,
            compress=False if dsn.host in ("127.0.0.1", "localhost", "::1") else "lz4",
            query_retries=0,
        )
    return ClickHouse(client, dsn, is_cluster=bool(settings.clickhouse_cluster), max_threads=max_threads)
