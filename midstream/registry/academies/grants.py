"""Grants: what a user may do in an academy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from midstream.registry.academies.checks import check_capability, check_id
from midstream.registry.academies.errors import NotThereError
from midstream.registry.academies.tables import Academy, Grant, User
from midstream.registry.academies.upserts import insert
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such


class GrantInfo(NamedTuple):
    """That a user has a capability in an academy."""

    user_id: int
    academy_id: int
    capability: str


class Grants:
    """The grants of the registry. A change is seen by every process within one second.

    Every method may raise RegistryUnavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def grant(self, user_id: int, academy_id: int, capability: str) -> bool:
        """Give a user a capability in an academy; return whether it was not there before.

        Raises:
            NotThereError: there is no such user or academy.
            AcademyError: an id or capability that cannot be.
        """
        wanted = _checked(user_id, academy_id, capability)
        statement = insert(self._engine, Grant).on_conflict_do_nothing().returning(Grant.user_id)
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            if session.scalar(select(User.id).where(User.id == user_id)) is None:
                raise NotThereError(f"there is no user {user_id}")
            if session.scalar(select(Academy.id).where(Academy.id == academy_id)) is None:
                raise NotThereError(f"there is no academy {academy_id}")
            is_new = session.scalar(statement.values(wanted._asdict())) is not None
            if is_new:
                note(session, "role.grant", f"user/{user_id}", academy=academy_id, capability=capability)
            return is_new

    def revoke(self, user_id: int, academy_id: int, capability: str) -> None:
        """Take a capability from a user in an academy.

        Raises:
            NotThereError: the user does not have it there.
            AcademyError: an id or capability that cannot be.
        """
        _checked(user_id, academy_id, capability)
        statement = delete(Grant).where(
            Grant.user_id == user_id, Grant.academy_id == academy_id, Grant.capability == capability
        )
        with unavailable_as_such(), self._engine.begin() as connection:
            if not connection.execute(statement).rowcount:
                raise NotThereError(f"user {user_id} does not have {capability} in academy {academy_id}")
            note(connection, "role.revoke", f"user/{user_id}", academy=academy_id, capability=capability)

    def list(self, *, user_id: int | None = None, academy_id: int | None = None, limit: int) -> Sequence[GrantInfo]:
        """Return ``limit`` grants at the most, by user, academy and capability; of one user or academy when given."""
        query = select(Grant.user_id, Grant.academy_id, Grant.capability)
        if user_id is not None:
            check_id("a user", user_id)
            query = query.where(Grant.user_id == user_id)
        if academy_id is not None:
            check_id("an academy", academy_id)
            query = query.where(Grant.academy_id == academy_id)
        query = query.order_by(Grant.user_id, Grant.academy_id, Grant.capability).limit(limit)
        with unavailable_as_such(), self._engine.connect() as connection:
            return [GrantInfo(*row) for row in connection.execute(query)]


def _checked(user_id: int, academy_id: int, capability: str) -> GrantInfo:
    check_id("a user", user_id)
    check_id("an academy", academy_id)
    check_capability(capability)
    return GrantInfo(user_id, academy_id, capability)
