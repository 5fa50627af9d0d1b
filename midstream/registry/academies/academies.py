"""Academies: created, made inactive, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from midstream.registry.academies.checks import check_id, check_name, check_status
from midstream.registry.academies.errors import NotThereError, TakenError
from midstream.registry.academies.numbers import next_id
from midstream.registry.academies.tables import Academy
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such


class AcademyInfo(NamedTuple):
    """An academy."""

    id: int
    name: str
    status: str
    created_at: datetime


class Academies:
    """The academies of the registry. Every method may raise RegistryUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, id_: int | None = None) -> int:
        """Create an active academy; return its id, which is one above the highest unless given.

        Raises:
            TakenError: there is an academy of this id.
            AcademyError: a name or id that cannot be.
        """
        check_name(name)
        if id_ is not None:
            check_id("an academy", id_)
        try:
            with unavailable_as_such(), Session(self._engine) as session, session.begin():
                number = next_id(session, Academy) if id_ is None else id_
                session.add(Academy(id=number, name=name, status="active", created_at=datetime.now(UTC)))
                note(session, "academy.create", f"academy/{number}")
        except IntegrityError:
            raise TakenError(f"there is an academy {id_} already") from None
        return number

    def set_status(self, id_: int, status: str) -> None:
        """Make an academy active, inactive or deleted.

        Raises:
            NotThereError: there is no such academy.
            AcademyError: there is no such status.
        """
        check_id("an academy", id_)
        check_status(status)
        with unavailable_as_such(), self._engine.begin() as connection:
            if not connection.execute(update(Academy).where(Academy.id == id_).values(status=status)).rowcount:
                raise NotThereError(f"there is no academy {id_}")
            note(connection, "academy.set_status", f"academy/{id_}", status=status)

    def page(self, *, after: int = 0, limit: int) -> Sequence[AcademyInfo]:
        """Return ``limit`` academies at the most in the order of their ids, those above ``after``."""
        query = select(Academy.id, Academy.name, Academy.status, Academy.created_at).where(Academy.id > after)
        with unavailable_as_such(), self._engine.connect() as connection:
            return [AcademyInfo(*row) for row in connection.execute(query.order_by(Academy.id).limit(limit))]
