"""The lives of processes that write assignment records: what one left unpublished another one publishes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, delete, insert, select, update

from midstream.registry.academies.tables import Writer
from midstream.registry.engine import unavailable_as_such


class WriterInfo(NamedTuple):
    """A process that writes, or did."""

    id: str
    started_at: datetime
    published: int
    """How far its writes were published, by its own count; 0: nothing yet."""
    seen_at: datetime
    """When it, or who published for it, last said something: :meth:`Writers.claim` takes it."""


class Writers:
    """The writing processes in the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, writer_id: str, now: datetime) -> None:
        """Say that a process will write. ``writer_id`` is a UUID that nobody had before."""
        row = {"id": writer_id, "started_at": now, "published": 0, "seen_at": now, "claimed": False}
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(insert(Writer), row)

    def progress(self, writer_id: str, published: int, now: datetime, *, claimed: bool = False) -> bool:
        """Say how far a process's writes are published, and that who publishes them lives.

        Args:
            writer_id: whose writes.
            published: how far.
            now: the moment.
            claimed: it is said by the process that claimed them.

        Returns:
            False: another one publishes them now, or did: begin anew under another id.
        """
        statement = (
            update(Writer)
            .where(Writer.id == writer_id, Writer.claimed == claimed)
            .values(published=published, seen_at=now)
        )
        with unavailable_as_such(), self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def abandoned(self, before: datetime) -> Sequence[WriterInfo]:
        """Return those that have said nothing since a moment, oldest first."""
        query = select(Writer.id, Writer.started_at, Writer.published, Writer.seen_at)
        with unavailable_as_such(), self._engine.connect() as connection:
            rows = connection.execute(query.where(Writer.seen_at < before).order_by(Writer.seen_at, Writer.id))
            return [WriterInfo(*row) for row in rows]

    def claim(self, writer_id: str, seen_at: datetime, now: datetime) -> bool:
        """Take over what a process left; of two that try at once one does. Its own :meth:`progress` fails from now on.

        Args:
            writer_id: whose writes.
            seen_at: as :meth:`abandoned` said; when it has said something since, it is not taken over.
            now: the moment; who claimed and then says nothing for long is itself taken over.
        """
        statement = (
            update(Writer).where(Writer.id == writer_id, Writer.seen_at == seen_at).values(claimed=True, seen_at=now)
        )
        with unavailable_as_such(), self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def end(self, writer_id: str) -> None:
        """Say that all writes of a process are published, and that it writes no more."""
        with unavailable_as_such(), self._engine.begin() as connection:
            connection.execute(delete(Writer).where(Writer.id == writer_id))
