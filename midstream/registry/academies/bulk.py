"""Brings many academies, users or grants in from a file. The same file may be brought in again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, or_, select

from midstream.registry.academies.checks import check_capability, check_id, check_name, check_status
from midstream.registry.academies.errors import AcademyError
from midstream.registry.academies.tables import Academy, Grant, User
from midstream.registry.academies.upserts import insert
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.row_files import CsvRow, JsonLine, Refusal, read_rows

_ROWS_AT_ONCE = 500
"""Of one transaction."""

_MAX_LINE_BYTES = 64 * 1024

_R = TypeVar("_R")


class _AcademyRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    name: str
    status: str | None = None
    """None: stays as it is; of a new academy active."""


class _UserRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    name: str


class _GrantRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: int
    academy: int
    capability: str


class _Placed(NamedTuple, Generic[_R]):
    line: int
    row: _R


class Kind(Protocol[_R]):
    """What can be brought in."""

    name: str
    row: type[_R]
    columns: tuple[str, ...]
    """Those that a CSV has to have."""

    def check(self, row: _R) -> None:
        """Refuse a row that cannot be.

        Raises:
            AcademyError: it cannot.
        """

    def key(self, row: _R) -> tuple[Any, ...]:
        """Return what makes two rows the same thing."""

    def store(self, engine: Engine, connection: Connection, rows: Sequence[_Placed[_R]]) -> list[Refusal]:
        """Store rows of different keys; return those that could not be."""


class _Academies:
    name = "academies"
    row = _AcademyRow
    columns: tuple[str, ...] = ("id", "name")

    def check(self, row: _AcademyRow) -> None:
        check_id("an academy", row.id)
        check_name(row.name)
        if row.status is not None:
            check_status(row.status)

    def key(self, row: _AcademyRow) -> tuple[Any, ...]:
        return (row.id,)

    def store(self, engine: Engine, connection: Connection, rows: Sequence[_Placed[_AcademyRow]]) -> list[Refusal]:
        now = datetime.now(UTC)
        insertion = insert(engine, Academy)
        new = insertion.excluded
        ids = [placed.row.id for placed in rows]
        there = select(Academy.id, Academy.status).where(Academy.id.in_(ids)).order_by(Academy.id).with_for_update()
        kept = {row.id: row.status for row in connection.execute(there)}
        connection.execute(
            insertion.on_conflict_do_update(
                index_elements=[Academy.id],
                set_={"name": new.name, "status": new.status},
                where=or_(Academy.name != new.name, Academy.status != new.status),
            ),
            [
                {"id": one.id, "name": one.name, "status": one.status or kept.get(one.id, "active"), "created_at": now}
                for _, one in rows
            ],
        )
        return []


class _Users:
    name = "users"
    row = _UserRow
    columns: tuple[str, ...] = ("id", "name")

    def check(self, row: _UserRow) -> None:
        check_id("a user", row.id)
        check_name(row.name)

    def key(self, row: _UserRow) -> tuple[Any, ...]:
        return (row.id,)

    def store(self, engine: Engine, connection: Connection, rows: Sequence[_Placed[_UserRow]]) -> list[Refusal]:
        now = datetime.now(UTC)
        insertion = insert(engine, User)
        new = insertion.excluded
        connection.execute(
            insertion.on_conflict_do_update(
                index_elements=[User.id], set_={"name": new.name}, where=User.name != new.name
            ),
            [{"id": placed.row.id, "name": placed.row.name, "created_at": now} for placed in rows],
        )
        return []


class _Grants:
    name = "roles"
    row = _GrantRow
    columns: tuple[str, ...] = ("user", "academy", "capability")

    def check(self, row: _GrantRow) -> None:
        check_id("a user", row.user)
        check_id("an academy", row.academy)
        check_capability(row.capability)

    def key(self, row: _GrantRow) -> tuple[Any, ...]:
        return row.user, row.academy, row.capability

    def store(self, engine: Engine, connection: Connection, rows: Sequence[_Placed[_GrantRow]]) -> list[Refusal]:
        users = _there(connection, User, {row.user for _, row in rows})
        academies = _there(connection, Academy, {row.academy for _, row in rows})
        refusals: list[Refusal] = []
        values: list[dict[str, Any]] = []
        for line, row in rows:
            if row.user not in users:
                refusals.append(Refusal(line, "UNKNOWN_USER", f"there is no user {row.user}"))
            elif row.academy not in academies:
                refusals.append(Refusal(line, "UNKNOWN_ACADEMY", f"there is no academy {row.academy}"))
            else:
                values.append({"user_id": row.user, "academy_id": row.academy, "capability": row.capability})
        if values:
            connection.execute(insert(engine, Grant).on_conflict_do_nothing(), values)
        return refusals


ACADEMIES: Kind[_AcademyRow] = _Academies()
USERS: Kind[_UserRow] = _Users()
GRANTS: Kind[_GrantRow] = _Grants()


def import_rows(
    engine: Engine, kind: Kind[_R], file: BinaryIO, refuse: Callable[[Refusal], None]
) -> Iterator[tuple[int, int]]:
    """Store the rows of a file, some hundred in a transaction, and tell ``refuse`` of those that cannot be.

    A row of which there is one already changes that one to what it says; of two in the file the later one counts.

    Yields:
        How many rows are stored since the last time, and the number of the file's bytes read so far.

    Raises:
        FileError: the file cannot be read on; what was yielded is stored.
        RegistryUnavailable: as well.
    """
    batch: dict[tuple[Any, ...], _Placed[_R]] = {}
    decoder: msgspec.json.Decoder[_R] = msgspec.json.Decoder(kind.row)
    position = 0

    def flush() -> int:
        rows = [batch[key] for key in sorted(batch)]  # so that two imports at once never deadlock
        batch.clear()
        if not rows:
            return 0
        with unavailable_as_such(), engine.begin() as connection:
            refusals = kind.store(engine, connection, rows)
            note(connection, "academies.import", kind.name, rows=len(rows) - len(refusals))
        for refusal in sorted(refusals, key=lambda one: one.line):
            refuse(refusal)
        return len(rows) - len(refusals)

    for found, position in read_rows(file, kind.columns, _MAX_LINE_BYTES, _MAX_LINE_BYTES):
        for item in found:
            placed = item if isinstance(item, Refusal) else _parse(kind, decoder, item)
            if isinstance(placed, Refusal):
                refuse(placed)
                continue
            key = kind.key(placed.row)
            if key in batch or len(batch) >= _ROWS_AT_ONCE:
                yield flush(), position
            batch[key] = placed
    yield flush(), position


def _parse(kind: Kind[_R], decoder: msgspec.json.Decoder[_R], item: JsonLine | CsvRow) -> _Placed[_R] | Refusal:
    try:
        if isinstance(item, CsvRow):
            row = msgspec.convert(item.cells, kind.row, strict=False)
        else:
            row = decoder.decode(item.text)
        kind.check(row)
    except UnicodeDecodeError:
        return Refusal(item.line, "INVALID_UTF8", "the line is not UTF-8")
    except msgspec.ValidationError as error:
        return Refusal(item.line, "INVALID_ROW", str(error))
    except RecursionError:
        return Refusal(item.line, "INVALID_ROW", "the line is nested too deep")
    except msgspec.DecodeError as error:
        return Refusal(item.line, "INVALID_JSON", f"the line is not JSON: {error}")
    except AcademyError as error:
        return Refusal(item.line, "INVALID_ROW", str(error))
    return _Placed(item.line, row)


def _there(connection: Connection, table: type[Academy] | type[User], ids: set[int]) -> set[int]:
    return set(connection.scalars(select(table.id).where(table.id.in_(ids))))
