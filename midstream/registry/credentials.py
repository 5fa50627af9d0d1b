"""Credentials: create, register, rotate, revoke, list. All calls block: async code runs them in a thread."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import jwt
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from midstream.registry.admin_log import note
from midstream.registry.engine import open_engine, unavailable_as_such
from midstream.registry.errors import CredentialConflict, RegistryError, UnknownCredential
from midstream.registry.keyfile import Cipher
from midstream.registry.models import Credential
from midstream.registry.states import State, state_of
from midstream.settings import Settings

Role = Literal["app", "operator"]

KEY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,127}")
"""A key or a name: it stands in tokens, URLs and file names, so it holds nothing special there."""

_SECRET_BYTES = 32
_MAX_CHANNELS = 256
_MAX_CHANNEL_CHARS = 256


@dataclass(frozen=True, slots=True)
class Issued:
    """What a sender is given. The token is HS256 over ``{"iss": key}`` and has no expiry of its own."""

    key: str
    secret: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """A credential as it may be shown: no secret. Moments are UTC."""

    key: str
    name: str
    role: str
    channels: tuple[str, ...]
    created_at: datetime
    rotated_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def state(self) -> State:
        """Whether tokens of this credential are taken now."""
        return state_of(self.revoked_at, self.expires_at)


class Credentials:
    """The credentials of the registry. A change is seen by every process within one second.

    Every method may raise RegistryUnavailable (database or key file cannot be used).
    """

    def __init__(self, settings: Settings, *, wait_ms: int = 5_000) -> None:
        self._engine = open_engine(settings, wait_ms=wait_ms)
        self._cipher = Cipher(settings)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def create(
        self,
        name: str,
        *,
        key: str | None = None,
        role: Role = "app",
        channels: tuple[str, ...] = (),
        expires_at: datetime | None = None,
    ) -> Issued:
        """Create a credential; ``key`` is ``name`` unless given. A revoked one is made anew.

        Raises:
            CredentialConflict: a credential of this key is there and not revoked.
            RegistryError: a name, key or channel that cannot be, or an expiry that has passed.
        """
        key = name if key is None else key
        _check_name("name", name)
        _check_name("key", key)
        _check_channels(channels)
        now = datetime.now(UTC)
        if expires_at is not None and expires_at <= now:
            raise RegistryError("the expiry has passed already")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        values = {
            "name": name,
            "role": role,
            "secret": self._cipher.encrypt(secret),
            "channels": sorted(set(channels)),
            "created_at": now,
            "rotated_at": None,
            "expires_at": expires_at,
            "revoked_at": None,
        }
        try:
            with unavailable_as_such(), Session(self._engine) as session, session.begin():
                row = _find(session, key)
                if row is None:
                    session.add(Credential(key=key, **values))
                elif row.revoked_at is None:
                    raise CredentialConflict(f"a credential of key {key} exists: revoke it first, or take another name")
                else:
                    session.execute(update(Credential).where(Credential.id == row.id).values(**values))
                expires = expires_at and expires_at.isoformat()
                note(
                    session,
                    "credential.create",
                    f"credential/{key}",
                    role=role,
                    channels=values["channels"],
                    expires=expires,
                )
        except IntegrityError:  # two at once (PostgreSQL; in SQLite the second waits for the first)
            raise CredentialConflict(f"a credential of key {key} exists") from None
        return _issued(key, secret)

    def register(self, name: str, key: str) -> Issued:
        """Give ``name`` the app credential of ``key``: create it, or return the one that is there.

        The same name and key return the same secret and token again, so a caller who lost the reply may
        repeat the call, and tokens already with devices stay good. For a new secret there is :meth:`rotate`.

        Raises:
            CredentialConflict: the key belongs to another name, to an operator, or was revoked or has expired
                (revoking must hold against a client that registers by itself): 409.
            RegistryError: a name or key that cannot be: 400.
        """
        _check_name("name", name)
        _check_name("key", key)
        for _ in range(2):  # a second time when another process created it in between
            with unavailable_as_such(), Session(self._engine) as session:
                row = _find(session, key)
                if row is not None:
                    info = _info(row)
                    if info.name != name or info.role != "app":
                        raise CredentialConflict(f"key {key} belongs to another consumer")
                    if info.state != "active":
                        raise CredentialConflict(f"the credential of key {key} is {info.state}")
                    return _issued(key, self._cipher.decrypt(row.secret))
            try:
                return self.create(name, key=key)
            except CredentialConflict:
                continue
        raise CredentialConflict(f"key {key} changed while it was registered")

    def rotate(self, key: str) -> Issued:
        """Give a credential a new secret; tokens of the old one end with it.

        Raises:
            UnknownCredential: there is none of this key.
            CredentialConflict: it was revoked.
        """
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        encrypted = self._cipher.encrypt(secret)
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = _find(session, key)
            if row is None:
                raise UnknownCredential(f"there is no credential of key {key}")
            if row.revoked_at is not None:
                raise CredentialConflict(f"the credential of key {key} was revoked: create it anew")
            row.secret = encrypted
            row.rotated_at = datetime.now(UTC)
            note(session, "credential.rotate", f"credential/{key}")
        return _issued(key, secret)

    def revoke(self, key: str) -> None:
        """End a credential. Ending it again changes nothing.

        Raises:
            UnknownCredential: there is none of this key.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            row = _find(session, key)
            if row is None:
                raise UnknownCredential(f"there is no credential of key {key}")
            if row.revoked_at is None:
                row.revoked_at = datetime.now(UTC)
                note(session, "credential.revoke", f"credential/{key}")

    def revoke_name(self, name: str) -> int:
        """End every credential of a name; return how many were ended now.

        Raises:
            UnknownCredential: the name has none.
        """
        with unavailable_as_such(), Session(self._engine) as session, session.begin():
            rows = session.scalars(select(Credential).where(Credential.name == name).with_for_update()).all()
            if not rows:
                raise UnknownCredential(f"{name} has no credential")
            live = [row for row in rows if row.revoked_at is None]
            for row in live:
                row.revoked_at = datetime.now(UTC)
                note(session, "credential.revoke", f"credential/{row.key}")
            return len(live)

    def list_all(self) -> list[CredentialInfo]:
        """Return all credentials, by name and key."""
        with unavailable_as_such(), Session(self._engine) as session:
            rows = session.scalars(select(Credential).order_by(Credential.name, Credential.key))
            return [_info(row) for row in rows]

    def token(self, key: str) -> Issued:
        """Return secret and token of an active credential once more (for the launcher, which prints a token).

        Raises:
            UnknownCredential: there is none of this key, or it is not active.
        """
        with unavailable_as_such(), Session(self._engine) as session:
            row = _find(session, key)
            if row is None or _info(row).state != "active":
                raise UnknownCredential(f"there is no active credential of key {key}")
            return _issued(key, self._cipher.decrypt(row.secret))


def _find(session: Session, key: str) -> Credential | None:
    return session.scalar(select(Credential).where(Credential.key == key).with_for_update())


def _info(row: Credential) -> CredentialInfo:
    return CredentialInfo(
        key=row.key,
        name=row.name,
        role=row.role,
        channels=tuple(row.channels),
        created_at=row.created_at,
        rotated_at=row.rotated_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _issued(key: str, secret: str) -> Issued:
    return Issued(key, secret, jwt.encode({"iss": key}, secret, algorithm="HS256"))


def _check_name(what: str, value: str) -> None:
    if not isinstance(value, str) or KEY_PATTERN.fullmatch(value) is None:
        raise RegistryError(
            f"a {what} takes 1 to 128 letters, digits and . _ : @ + = - and begins with a letter or digit"
        )


def _check_channels(channels: tuple[str, ...]) -> None:
    if len(channels) > _MAX_CHANNELS:
        raise RegistryError(f"a credential takes at most {_MAX_CHANNELS} channels")
    for channel in channels:
        if not 0 < len(channel) <= _MAX_CHANNEL_CHARS or not channel.isprintable():
            raise RegistryError(f"a channel takes 1 to {_MAX_CHANNEL_CHARS} printable characters")
