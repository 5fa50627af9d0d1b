"""Which objects were erased: keyed digests of their types and ids, never the ids.

Every call blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Engine, select

from midstream.registry.academies.upserts import insert
from midstream.registry.engine import unavailable_as_such
from midstream.registry.sync.tables import ErasedId

_A_QUERY = 500


class Newest(NamedTuple):
    """What was erased since a moment: digests, the newest moment among them, whether that is all."""

    digests: Sequence[str]
    at: datetime | None
    is_all: bool


class ErasedIds:
    """The digests of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def add(self, digest: str, type_: str, job_id: str) -> None:
        """Note that an object is erased; again changes nothing."""
        row = insert(self._engine, ErasedId).values(digest=digest, type=type_, job_id=job_id, at=self._now())
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(row.on_conflict_do_nothing(index_elements=["digest"]))

    def all(self, type_: str) -> set[str]:
        """Return the digests of all erased objects of a type."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return set(connection.scalars(select(ErasedId.digest).where(ErasedId.type == type_)))

    def is_any(self) -> bool:
        """Whether anything was erased."""
        with unavailable_as_such(), self._engine.connect() as connection:
            return connection.scalar(select(ErasedId.digest).limit(1)) is not None

    def among(self, digests: Iterable[str]) -> set[str]:
        """Return those of some digests that are of erased objects."""
        found: set[str] = set()
        asked = list(digests)
        with unavailable_as_such(), self._engine.connect() as connection:
            for start in range(0, len(asked), _A_QUERY):
                some = asked[start : start + _A_QUERY]
                found |= set(connection.scalars(select(ErasedId.digest).where(ErasedId.digest.in_(some))))
        return found

    def since(self, at: datetime | None, limit: int) -> Newest:
        """Return ``limit`` digests at the most that were noted at a moment or later; None: all."""
        query = select(ErasedId.digest, ErasedId.at).order_by(ErasedId.at.desc()).limit(limit + 1)
        if at is not None:
            query = query.where(ErasedId.at >= at)
        with unavailable_as_such(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return Newest([row.digest for row in rows[:limit]], rows[0].at if rows else None, len(rows) <= limit)
