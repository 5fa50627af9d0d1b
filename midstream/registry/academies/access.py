"""Who asks for assignment telemetry, and what they may do: right within a second of every change."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal

from sqlalchemy import Engine, Select, bindparam, exists, select

from midstream.metrics import ACADEMY_CACHE_ENTRIES
from midstream.registry.academies.checks import is_id
from midstream.registry.academies.errors import InvalidTokenError, NotProvidedError
from midstream.registry.academies.records import Found, find_record, hash_slug, may_be_record
from midstream.registry.academies.tables import Academy, Grant, User, UserToken
from midstream.registry.academies.users import hash_token
from midstream.registry.engine import unavailable_as_such
from midstream.registry.reads import Reads
from midstream.registry.remembered import Remembered
from midstream.settings import Settings

_REMEMBER_S = 1.0  # a change must be seen within this time
_MAX_REMEMBERED = 10_000  # of each kind; some 300 bytes each
_MAX_TOKEN_CHARS = 1_024
_FOR_EVER = float("inf")

_BLANKS = re.compile(r"[ \t]+")

_TOKEN = select(UserToken.token_hash, UserToken.user_id, UserToken.expires_at, UserToken.revoked_at).where(
    UserToken.token_hash == bindparam("hash")
)
_STANDING = select(Academy.status).where(
    Academy.id == bindparam("academy"),
    exists().where(
        Grant.user_id == bindparam("user"),
        Grant.academy_id == Academy.id,
        Grant.capability.in_(bindparam("capabilities", expanding=True)),
    ),
)
_ACADEMIES = select(Grant.academy_id).where(Grant.user_id == bindparam("user")).distinct().limit(2)
_USER = select(User.id).where(User.id == bindparam("user"))


class Several(Enum):
    """The type of :data:`SEVERAL`."""

    SEVERAL = "several"


SEVERAL: Final = Several.SEVERAL
"""More than one academy."""


class Access:
    """What one process asks of academies. Belongs to one event loop.

    Every coroutine may raise RegistryUnavailable: it cannot be told now.
    """

    def __init__(self, settings: Settings) -> None:
        self._reads = Reads(settings, "access")
        self._tokens: Remembered[bytes, int] = _remembered("token")
        self._standings: Remembered[tuple[int, int, frozenset[str]], str | Literal[False]] = _remembered("standing")
        self._only: Remembered[int, int | Several | Literal[False]] = _remembered("only_academy")
        self._users: Remembered[int, Literal[True]] = _remembered("user")
        self._records: Remembered[tuple[int, bytes, int], Found] = _remembered("record")

    def close(self) -> None:
        """Close the connections; reads under way are not waited for."""
        self._reads.close()
        for remembered in (self._tokens, self._standings, self._only, self._users, self._records):
            remembered.clear()

    async def user_of(self, authorization: str | None) -> int:
        """Return whose token a request carries in ``Authorization: Token <token>``.

        Raises:
            NotProvidedError: no header, or of another scheme.
            InvalidTokenError: it holds no token, or one that is nobody's, was revoked or has expired.
        """
        digest = hash_token(_token_of(authorization))
        user_id = self._tokens.get(digest)
        if user_id is not None:
            return user_id
        began, now = time.monotonic(), datetime.now(UTC)
        row = await self._reads.read(lambda engine: _first(engine, _TOKEN, {"hash": digest}))
        if row is None or not hmac.compare_digest(row.token_hash, digest) or row.revoked_at is not None:
            raise InvalidTokenError
        left_s = _REMEMBER_S if row.expires_at is None else (row.expires_at - now).total_seconds()
        if left_s <= 0:
            raise InvalidTokenError
        self._tokens.put(digest, row.user_id, began + min(left_s, _REMEMBER_S))
        return int(row.user_id)

    async def standing(self, user_id: int, academy_id: int, capabilities: Collection[str]) -> str | None:
        """Return an academy's status when a user has one of the capabilities there.

        Returns:
            active, inactive or deleted; None when the user has none of them there, or there is no such academy.
        """
        if not (is_id(user_id) and is_id(academy_id)):
            return None
        key = (user_id, academy_id, frozenset(capabilities))
        held = self._standings.get(key)
        if held is None:
            began = time.monotonic()
            wanted = {"user": user_id, "academy": academy_id, "capabilities": sorted(key[2])}
            row = await self._reads.read(lambda engine: _first(engine, _STANDING, wanted))
            held = row.status if row is not None else False
            self._standings.put(key, held, began + _REMEMBER_S)
        return held or None

    async def only_academy(self, user_id: int) -> int | Several | None:
        """Return the academy of a request that names none: the one where the user may do anything at all.

        Returns:
            Its id, whatever its status; :data:`SEVERAL` when there are more than one, None when there is none.
        """
        if not is_id(user_id):
            return None
        held = self._only.get(user_id)
        if held is None:
            began = time.monotonic()
            ids = await self._reads.read(lambda engine: _academies(engine, user_id))
            held = SEVERAL if len(ids) > 1 else ids[0] if ids else False
            self._only.put(user_id, held, began + _REMEMBER_S)
        return held or None

    async def user_exists(self, user_id: int) -> bool:
        """Whether there is such a user. Users are never deleted."""
        if not is_id(user_id):
            return False
        if self._users.get(user_id):
            return True
        if await self._reads.read(lambda engine: _first(engine, _USER, {"user": user_id})) is None:
            return False
        self._users.put(user_id, True, _FOR_EVER)
        return True

    async def record(self, academy_id: int, asset_slug: str, user_id: int) -> Found | None:
        """Return a record's row, None when there is none; unless it is confirmed it is no record yet."""
        if not may_be_record(academy_id, asset_slug, user_id):
            return None
        key = (academy_id, hash_slug(asset_slug), user_id)
        found = self._records.get(key)
        if found is None:
            found = await self._reads.read(lambda engine: find_record(engine, academy_id, asset_slug, user_id))
            if found is not None and found.confirmed:  # from then on it stays as it is
                self._records.put(key, found, _FOR_EVER)
        return found


def _remembered(kind: str) -> Any:
    return Remembered(_MAX_REMEMBERED, ACADEMY_CACHE_ENTRIES.labels(kind))


def _token_of(authorization: str | None) -> str:
    scheme, *words = _BLANKS.split((authorization or "").strip(" \t"))
    if scheme.lower() != "token":
        raise NotProvidedError
    if len(words) != 1 or len(words[0]) > _MAX_TOKEN_CHARS:
        raise InvalidTokenError
    return words[0]


def _first(engine: Engine, statement: Select[*tuple[Any, ...]], wanted: dict[str, Any]) -> Any:
    """Return the row that a statement finds, None when it finds none."""
    with unavailable_as_such(), engine.connect() as connection:
        return connection.execute(statement, wanted).one_or_none()


def _academies(engine: Engine, user_id: int) -> Sequence[int]:
    with unavailable_as_such(), engine.connect() as connection:
        return connection.scalars(_ACADEMIES, {"user": user_id}).all()
