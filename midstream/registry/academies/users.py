"""Users of academies and their tokens: random, shown once, kept as their SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from midstream.registry.academies.checks import check_id, check_name
from midstream.registry.academies.errors import AcademyError, NotThereError, TakenError
from midstream.registry.academies.numbers import next_id
from midstream.registry.academies.tables import Grant, Record, User, UserToken
from midstream.registry.admin_log import note
from midstream.registry.engine import unavailable_as_such
from midstream.registry.states import State, state_of

_TOKEN_BYTES = 32


class UserInfo(NamedTuple):
    """A user."""

    id: int
    name: str
    created_at: datetime


class TokenInfo(NamedTuple):
    """A token as it may be shown."""

    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def state(self) -> State:
        """Whether it is taken now."""
        return state_of(self.revoked_at, self.expires_at)


class Users:
    """The users of the registry. A change is seen by every process within one second.

    Every method may raise RegistryUnavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, id_: int | None = None) -> int:
        """Create a user; return its id, which is one above the highest unless given.

        Raises:
            TakenError: there is a user of this id.
            AcademyError: a name or id that cannot be.
        """
        check_name(name)
        if id_ is not None:
            check_id("a user", id_)
        try:
            with unavailable_as_such(), Session(self._engine) as session, session.begin():
                number = next_id(session, User) if id_ is None else id_
                session.add(User(id=number, name=name, created_at=datetime.now(UTC)))
                note(session, "user.create", f"user/{number}")
        except IntegrityError:
            raise TakenError(f"there is a user {id_} already") from None
        return number

    def page(self, *, after: int = 0, limit: int) -> Sequence[UserInfo]:
        """Return ``limit`` users at the most in the order of their ids, those above ``after``."""
        query = select(User.id, User.name, User.created_at).where(User.id > after)
        with unavailable_as_such(), self._engine.connect() as connection:
            return [UserInfo(*row) for row in connection.execute(query.order_by(User.id).limit(limit))]

    def create_token(self, id_: int, expires_at: datetime | None = None) -> str:
        """Return a new token of a user; it can be read this once.

        Raises:
            NotThereError: there is no such user.
            AcademyError: the expiry has passed.
        """
        check_id("a user", id_)
        now = datetime.now(UTC)
        if expires_at is not None and expires_at <= now:
            raise AcademyError("the expiry has passed already")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        row = UserToken(token_hash=hash_token(token), user_id=id_, created_at=now, expires_at=expires_at)
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            _check_there(session, id_)
            session.add(row)
            note(session, "user_token.create", f"user/{id_}", expires=expires_at and expires_at.isoformat())
        return token

    def tokens(self, id_: int) -> Sequence[TokenInfo]:
        """Return a user's tokens, oldest first.

        Raises:
            NotThereError: there is no such user.
        """
        check_id("a user", id_)
        query = select(UserToken.created_at, UserToken.expires_at, UserToken.revoked_at)
        with unavailable_as_such(), Session(self._engine) as session:
            _check_there(session, id_)
            rows = session.execute(query.where(UserToken.user_id == id_).order_by(UserToken.id))
            return [TokenInfo(*row) for row in rows]

    def revoke_tokens(self, id_: int) -> int:
        """End all tokens of a user; return how many were ended now.

        Raises:
            NotThereError: there is no such user.
        """
        check_id("a user", id_)
        now = datetime.now(UTC)
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            _check_there(session, id_)
            ended = session.scalars(
                update(UserToken)
                .where(UserToken.user_id == id_, UserToken.revoked_at.is_(None))
                .values(revoked_at=now)
                .returning(UserToken.expires_at)
            ).all()
            live = sum(expires_at is None or expires_at > now for expires_at in ended)
            if ended:
                note(session, "user_token.revoke", f"user/{id_}", tokens=live)
            return live


def erase_user(engine: Engine, id_: int) -> int:
    """Remove a user, with tokens and rights, and that there are records of this user; return how many rows.

    Raises:
        RegistryUnavailable: the registry is away.
    """
    with unavailable_as_such(), engine.begin() as connection:
        of_user = [delete(table).where(table.user_id == id_) for table in (UserToken, Grant, Record)]
        return sum(connection.execute(one).rowcount for one in [*of_user, delete(User).where(User.id == id_)])


def hash_token(token: str) -> bytes:
    """Return what is kept of a token, and looked for: 32 bytes. It is random, so a plain hash tells nothing of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _check_there(session: Session, id_: int) -> None:
    if session.scalar(select(User.id).where(User.id == id_)) is None:
        raise NotThereError(f"there is no user {id_}")
