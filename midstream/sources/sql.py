"""A source that is a query of a database, through SQLAlchemy: streamed in blocks, read only where the database can.

PostgreSQL and SQLite are tested. There a read is one snapshot in a transaction that cannot write, and every statement
has a time limit; in another database its user must be one that can only read.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Engine,
    Row,
    Select,
    Uuid,
    bindparam,
    column,
    create_engine,
    literal_column,
    select,
    text,
)
from sqlalchemy.engine import CursorResult, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import String, TypeEngine

from midstream.dimensions import DimensionType, now_ms
from midstream.sources.config import SqlConfig
from midstream.sources.errors import SourceCode, SourceError, config_error
from midstream.sources.limits import StatementLimit, Watchdog, begin_limited, connect_arguments
from midstream.sources.reading import Block, Deadline, Reading, askable, only
from midstream.sources.rows import RowMaker
from midstream.sources.secrets import Hider
from midstream.sources.watermark import as_time, next_watermark, version_after

_ROWS_AT_ONCE = 500
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
_ID_TYPES: dict[str, TypeEngine[Any]] = {"text": String(), "integer": BigInteger(), "uuid": Uuid()}
_MAX_INTEGER = 2**63


class SqlSource:
    """Reads what a query selects: a column of ids, perhaps one of versions, and all others as attributes."""

    def __init__(self, type_: DimensionType, config: SqlConfig, hide: Hider, max_attributes_bytes: int) -> None:
        self.type = type_
        self._config = config
        self._hide = hide
        self._max_bytes = max_attributes_bytes
        self._timed = bool(config.updated_at_column)
        self.incremental = bool(config.version_column or config.updated_at_column)

    def read(self, ids: Sequence[str] | None = None, since: str | None = None) -> Reading:
        """See :class:`midstream.sources.reading.Source`."""
        after = version_after(since, self._timed) if self.incremental and ids is None else None
        maker = RowMaker(self.type, self._config.fields, self._max_bytes)
        began_ms = now_ms()

        def watermark() -> str | None:
            return next_watermark(after, maker.highest, self._timed, began_ms) if self.incremental else None

        return Reading(self._blocks(maker, ids, after), after is None, watermark)

    def _blocks(self, maker: RowMaker, ids: Sequence[str] | None, after: int | None) -> Iterator[Block]:
        deadline = Deadline(self._config.read_timeout_ms)
        asked = None if ids is None else frozenset(ids)
        limit = StatementLimit(self._config.statement_timeout_ms)
        number = 0
        with ExitStack() as stack:
            with self._errors(limit, "connecting"):
                watchdog = stack.enter_context(Watchdog(limit))
                connection = stack.enter_context(self._engine().connect())
                stack.callback(limit.renew)  # to close the connection has its own time
                limit.renew()
                watchdog.guard(connection)
                begin_limited(connection, limit)
            for statement, parameters in self._statements(ids, after):
                blocks = stack.enter_context(closing(self._rows(connection, statement, parameters, limit)))
                for names, rows in blocks:
                    deadline.check()
                    block: Block = []
                    for row in rows:
                        number += 1
                        block.append(maker.from_columns(dict(zip(names, row, strict=True)), f"row {number}"))
                    limit.rest()  # what becomes of the rows takes its own time
                    yield only(block, asked)

    def _rows(
        self, connection: Connection, statement: Select[Any], parameters: dict[str, Any], limit: StatementLimit
    ) -> Generator[tuple[list[str], Sequence[Row[Any]]]]:
        limit.renew()
        with ExitStack() as stack:
            with self._errors(limit, "the query"):
                options = {"stream_results": True, "max_row_buffer": _ROWS_AT_ONCE}
                result = connection.execute(statement, parameters, execution_options=options)
                stack.enter_context(closing(result))
                stack.callback(limit.renew)  # to close the cursor has its own time
                names = self._names(result)
                blocks = result.partitions(_ROWS_AT_ONCE)
            while True:
                limit.renew()
                with self._errors(limit, "the query"):
                    rows = next(blocks, None)
                if rows is None:
                    return
                yield names, rows

    def _statements(self, ids: Sequence[str] | None, after: int | None) -> Iterator[tuple[Select[Any], dict[str, Any]]]:
        config = self._config
        # What looks like a parameter in the operator's query is none; after a comment at its end comes a new line.
        query = text(_PARAMETER.sub(r"\\:", config.query.rstrip().rstrip(";")) + "\n")
        rows = query.columns(column(config.id_column)).subquery("source_rows")
        everything: Select[Any] = select(literal_column("*")).select_from(rows)
        if ids is not None:
            type_ = _ID_TYPES[config.id_type]
            wanted = everything.where(rows.c[config.id_column].in_(bindparam("ids", type_=type_, expanding=True)))
            values = [value for one in askable(ids) if (value := _typed(one, config.id_type)) is not None]
            for start in range(0, len(values), config.ids_per_query):
                yield wanted, {"ids": values[start : start + config.ids_per_query]}
        elif after is not None and self._timed:
            since: Any = max(0, after - config.overlap_ms)
            if config.updated_at_unit == "epoch_s":
                since //= 1000
            elif config.updated_at_unit == "timestamp":
                since = as_time(since).astimezone(UTC).replace(tzinfo=None)
            type_ = DateTime() if config.updated_at_unit == "timestamp" else BigInteger()
            changed = column(config.updated_at_column) > bindparam("since", type_=type_)
            yield everything.where(changed), {"since": since}
        elif after is not None:
            changed = column(config.version_column) > bindparam("since", type_=BigInteger())
            yield everything.where(changed), {"since": after}
        else:
            yield everything, {}

    def _names(self, result: CursorResult[Any]) -> list[str]:
        """Return the names of the columns.

        Raises:
            SourceError: one stands twice, or one that is configured is missing.
        """
        names = list(result.keys())
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            message = f"the query gives more than one column {', '.join(sorted(twice))}"
            raise SourceError(SourceCode.SOURCE_UNREADABLE, message)
        config = self._config
        needed = [config.id_column, config.version_column, config.updated_at_column, config.deleted_column]
        missing = [name for name in (*needed, *config.json_columns) if name and name not in names]
        if missing:
            message = f"the query gives no column {', '.join(missing)}; it gives {', '.join(names)[:300]}"
            raise SourceError(SourceCode.SOURCE_UNREADABLE, message)
        return names

    def _engine(self) -> Engine:
        config = self._config
        try:
            url = make_url(config.url.get_secret_value())
            if config.password is not None:
                url = url.set(password=config.password.get_secret_value())
            as_written = {"json_deserializer": _as_written} if url.get_backend_name() == "postgresql" else {}
            return create_engine(
                url, poolclass=NullPool, hide_parameters=True, connect_args=connect_arguments(url), **as_written
            )
        except (ArgumentError, ImportError, ValueError) as error:
            # SQLAlchemy does not repeat the URL; a driver that is missing is named.
            raise config_error(f"{self.type}.url cannot be used: {self._hide(str(error))}") from None

    @contextmanager
    def _errors(self, limit: StatementLimit, doing: str) -> Iterator[None]:
        """Turn what the database raises into errors of ours, without the statement and its parameters."""
        try:
            yield
        except DBAPIError as error:
            if limit.passed_with(error.orig):
                raise limit.error() from None
            code = SourceCode.SOURCE_REFUSED
            if doing == "connecting" or isinstance(error, InterfaceError):
                code = SourceCode.SOURCE_UNAVAILABLE
            elif error.connection_invalidated:
                code = SourceCode.SOURCE_CUT
            raise SourceError(code, f"{doing}: {self._hide(_first_line(error.orig))}") from None
        except UnicodeDecodeError as error:
            raise SourceError(SourceCode.SOURCE_UNREADABLE, f"{doing}: a text is not UTF-8: {error.reason}") from None
        except SQLAlchemyError as error:
            raise SourceError(SourceCode.SOURCE_REFUSED, f"{doing}: {type(error).__name__}") from None


def _first_line(error: BaseException | None) -> str:
    """Return what a driver says, without the lines in which it repeats the query."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _typed(id_: str, type_: str) -> str | int | UUID | None:
    """Return an id as its column has it; None when the column cannot hold it."""
    if type_ == "text":
        return id_
    try:
        value: int | UUID = int(id_) if type_ == "integer" else UUID(id_)
    except ValueError:
        return None
    if isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        return None
    return value if str(value) == id_ else None


def _as_written(value: str | bytes) -> msgspec.Raw:
    """Keep a column of JSON as the database wrote it."""
    return msgspec.Raw(value if isinstance(value, str) else bytes(value))
