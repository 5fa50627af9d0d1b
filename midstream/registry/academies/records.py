"""Which assignment records there are: their ids, and the versions that their writes are given.

A write reserves its version, is stored, and is then confirmed. What was reserved and never confirmed is no record; it
keeps its id for the next try. PostgreSQL's ids have gaps: it counts for each write, new or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Engine, and_, bindparam, case, func, not_, select, update

from midstream.registry.academies.checks import is_id, is_slug
from midstream.registry.academies.tables import Record
from midstream.registry.academies.upserts import insert
from midstream.registry.engine import unavailable_as_such

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_TRY_US = 60_000_000
"""How long a reservation without a stored write may stand for the moment of creation."""

_FIND = select(Record.id, Record.created_us, Record.confirmed).where(
    Record.academy_id == bindparam("academy"),
    Record.asset_hash == bindparam("asset"),
    Record.user_id == bindparam("user"),
)
# Locked in the order in which reserve() does: two transactions that wait for each other would end one of them.
_UNCONFIRMED = (
    select(Record.id)
    .where(Record.id.in_(bindparam("ids", expanding=True)), not_(Record.confirmed))
    .order_by(Record.academy_id, Record.asset_hash, Record.user_id)
    .with_for_update()
)
_CONFIRM = update(Record).where(Record.id.in_(bindparam("ids", expanding=True))).values(confirmed=True)


class Wanted(NamedTuple):
    """Versions for ``writes`` writes of one record at a moment; :func:`may_be_record` says what can be a record."""

    academy_id: int
    asset_slug: str
    user_id: int
    writes: int
    at: datetime


class Reserved(NamedTuple):
    """A record's row, and the first of the versions that were wanted; the others follow it."""

    id: int
    created_at: datetime
    first_version: int
    confirmed: bool


class Found(NamedTuple):
    """A record's row. Unless ``confirmed`` it is no record yet."""

    id: int
    created_at: datetime
    confirmed: bool


class Records:
    """The assignment records of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reserve = _reserving(engine)

    def reserve(self, wanted: Sequence[Wanted]) -> list[Reserved]:
        """Give versions to writes, in one transaction: all of them or none. A record that is not there is made.

        A version is about the microseconds since 1970, and always above those given before.

        Args:
            wanted: each record once at the most.

        Returns:
            One for each wanted, in their order.

        Raises:
            ValueError: a record is wanted twice, one cannot be, or no write of it is wanted.
        """
        if not wanted:
            return []
        if not all(may_be_record(*one[:3]) and one.writes > 0 for one in wanted):
            raise ValueError("what can be no record, or no write of it, is wanted")
        order = {_key(one.academy_id, one.asset_slug, one.user_id): index for index, one in enumerate(wanted)}
        if len(order) < len(wanted):
            raise ValueError("a record is wanted twice at once")
        rows = [_row(key, wanted[index]) for key, index in sorted(order.items())]  # so that two never deadlock
        with unavailable_as_such(), self._engine.begin() as connection:
            found = connection.execute(self._reserve, rows).all()
        reserved: dict[int, Reserved] = {}
        for row in found:
            index = order[row.academy_id, row.asset_hash, row.user_id]
            first = row.version - wanted[index].writes + 1
            reserved[index] = Reserved(row.id, _moment(row.created_us), first, row.confirmed)
        return [reserved[index] for index in range(len(wanted))]

    def confirm(self, ids: Iterable[int]) -> set[int]:
        """Say that a write of each was stored; return those of which nobody had said so before."""
        with unavailable_as_such(), self._engine.begin() as connection:
            new = set(connection.scalars(_UNCONFIRMED, {"ids": list(ids)}))
            if new:
                connection.execute(_CONFIRM, {"ids": list(new)})
            return new

    def find(self, academy_id: int, asset_slug: str, user_id: int) -> Found | None:
        """Return a record's row, None when there is none."""
        return find_record(self._engine, academy_id, asset_slug, user_id)


def may_be_record(academy_id: int, asset_slug: str, user_id: int) -> bool:
    """Whether there can be a record of these: see ``checks``."""
    return is_id(academy_id) and is_id(user_id) and is_slug(asset_slug)


def hash_slug(asset_slug: str) -> bytes:
    """Return what a slug is looked for by: 32 bytes."""
    return hashlib.sha256(asset_slug.encode("utf-8", "surrogatepass")).digest()


def find_record(engine: Engine, academy_id: int, asset_slug: str, user_id: int) -> Found | None:
    """Return a record's row, None when there is none.

    Raises:
        RegistryUnavailable: it cannot be told now.
    """
    if not may_be_record(academy_id, asset_slug, user_id):
        return None
    key = {"academy": academy_id, "asset": hash_slug(asset_slug), "user": user_id}
    with unavailable_as_such(), engine.connect() as connection:
        row = connection.execute(_FIND, key).one_or_none()
        return None if row is None else Found(row.id, _moment(row.created_us), row.confirmed)


def _reserving(engine: Engine) -> Any:
    """Return the statement: SQLAlchemy makes one INSERT of many rows of it, and remembers its text."""
    statement = insert(engine, Record)
    new = statement.excluded
    greatest = func.greatest if engine.dialect.name == "postgresql" else func.max  # of two numbers
    # A new row's version is the last of its writes, the first being its moment: the difference says how many.
    writes = new.version - new.created_us + 1
    given_up = and_(not_(Record.confirmed), Record.created_us < new.created_us - _TRY_US)
    return statement.on_conflict_do_update(
        index_elements=[Record.academy_id, Record.asset_hash, Record.user_id],
        set_={
            "version": greatest(Record.version, new.created_us - 1) + writes,
            "created_us": case((given_up, new.created_us), else_=Record.created_us),
        },
    ).returning(
        Record.id,
        Record.academy_id,
        Record.asset_hash,
        Record.user_id,
        Record.version,
        Record.created_us,
        Record.confirmed,
    )


def _key(academy_id: int, asset_slug: str, user_id: int) -> tuple[int, bytes, int]:
    return academy_id, hash_slug(asset_slug), user_id


def _row(key: tuple[int, bytes, int], one: Wanted) -> dict[str, Any]:
    at_us = (one.at - _EPOCH) // _US
    return {
        "academy_id": key[0],
        "asset_hash": key[1],
        "user_id": key[2],
        "asset_slug": one.asset_slug,
        "version": at_us - 1 + one.writes,
        "created_us": at_us,
        "confirmed": False,
    }


def _moment(us: int) -> datetime:
    return _EPOCH + us * _US
