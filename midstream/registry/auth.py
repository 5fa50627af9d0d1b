"""Who sends a request: the bearer token in ``Authorization``, proven by the credential its ``iss`` names.

A token is HS256 with the credential's own secret, or RS256 with the public key the operator put at
``<MIDSTREAM_JWT_PUBLIC_KEYS>/<iss>.pem``. What the token's header says only chooses between the keys that are
configured for that ``iss``; each key serves its own algorithm and no other. The role comes from the
credential, never from a claim.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy import Engine, Row, bindparam, select

from midstream.logs import get_logger
from midstream.metrics import CREDENTIAL_CACHE_ENTRIES
from midstream.registry.credentials import KEY_PATTERN
from midstream.registry.engine import unavailable_as_such
from midstream.registry.errors import RegistryUnavailable, Unauthorized
from midstream.registry.keyfile import Cipher
from midstream.registry.models import Credential
from midstream.registry.reads import Reads
from midstream.registry.remembered import Remembered
from midstream.settings import Settings

_log = get_logger(__name__)

_REMEMBER_S = 1.0  # a change of a credential must be seen within this time
_MAX_REMEMBERED = 10_000
_MAX_TOKEN_CHARS = 8 * 1024

_CLAIMS_TO_VERIFY = {
    "verify_signature": True,
    "verify_exp": True,
    "verify_nbf": True,
    # Whatever else a token carries is not for us to judge: the clock of who made it, or whom else it is for.
    "verify_iat": False,
    "verify_aud": False,
    "verify_sub": False,
    "verify_jti": False,
}

_STATEMENT = select(
    Credential.key,
    Credential.name,
    Credential.role,
    Credential.secret,
    Credential.channels,
    Credential.expires_at,
    Credential.revoked_at,
).where(Credential.key == bindparam("key"))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sends a request. ``channels`` empty: any channel."""

    key: str
    name: str
    role: str
    channels: frozenset[str]

    def may_send_for(self, channel: str) -> bool:
        """Whether the credential may send for ``channel``; a request that names none ("") may be sent."""
        return not channel or not self.channels or channel in self.channels


class Authenticator:
    """Authenticates requests of one process. Remembers verified tokens for one second, 10,000 at most.

    Belongs to one event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self._cipher = Cipher(settings)
        self._public_keys = settings.jwt_public_keys
        self._reads = Reads(settings, "registry")
        self._remembered: Remembered[bytes, Principal] = Remembered(_MAX_REMEMBERED, CREDENTIAL_CACHE_ENTRIES)

    def close(self) -> None:
        """Close the connections; look-ups under way are not waited for."""
        self._reads.close()
        self._remembered.clear()

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return who sent a request with this ``Authorization`` header.

        Raises:
            Unauthorized: no token, or not one of a credential that is active now: 401.
            RegistryUnavailable: the registry cannot be read now: 503.
        """
        if not authorization:
            raise Unauthorized("no Authorization header")
        digest = hashlib.blake2b(authorization.encode("utf-8", "surrogatepass"), digest_size=20).digest()
        now = time.monotonic()
        held = self._remembered.get(digest)
        if held is not None:
            return held
        token = _token_of(authorization)
        key, algorithm = _unverified(token)
        row = await self._reads.read(lambda engine: _read(engine, key))
        if row is None:
            raise Unauthorized("no credential has this iss")
        principal, seconds_left = self._verify(token, algorithm, row)
        self._remembered.put(digest, principal, now + min(_REMEMBER_S, seconds_left))
        return principal

    def _verify(self, token: str, algorithm: str, row: Row[*tuple[Any, ...]]) -> tuple[Principal, float]:
        """Return the principal, and the seconds left until the token or its credential expires."""
        now = datetime.now(UTC)
        if row.revoked_at is not None:
            raise Unauthorized("the credential was revoked")
        if row.expires_at is not None and row.expires_at <= now:
            raise Unauthorized("the credential has expired")
        secret: str | RSAPublicKey | None
        if algorithm == "HS256":
            secret = self._cipher.decrypt(row.secret)
        else:
            secret = _public_key(self._public_keys, row.key) if algorithm == "RS256" else None
        if secret is None:
            raise Unauthorized("the token's algorithm is not configured for this credential")
        try:
            claims = jwt.decode(token, secret, algorithms=[algorithm], options=_CLAIMS_TO_VERIFY)  # type: ignore[arg-type]
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token is refused: {type(error).__name__}") from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized("the token's claims are malformed") from None
        seconds_left = float("inf")
        if claims.get("exp") is not None:
            seconds_left = int(claims["exp"]) - now.timestamp()
        if row.expires_at is not None:
            seconds_left = min(seconds_left, (row.expires_at - now).total_seconds())
        return Principal(row.key, row.name, row.role, frozenset(row.channels)), seconds_left


def _token_of(authorization: str) -> str:
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("the Authorization header holds no bearer token")
    if len(token) > _MAX_TOKEN_CHARS:
        raise Unauthorized("the token is too long")
    return token


def _unverified(token: str) -> tuple[str, str]:
    """Return ``iss`` and ``alg`` of a token that nobody has proven yet."""
    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise Unauthorized("the token is malformed") from None
    key, algorithm = whole["payload"].get("iss"), whole["header"].get("alg")
    if not isinstance(key, str) or KEY_PATTERN.fullmatch(key) is None:
        raise Unauthorized("the token has no iss that could be a credential's")
    if algorithm not in ("HS256", "RS256"):
        raise Unauthorized("the token's algorithm is neither HS256 nor RS256")
    return key, algorithm


def _read(engine: Engine, key: str) -> Row[*tuple[Any, ...]] | None:
    with unavailable_as_such(), engine.connect() as connection:
        return connection.execute(_STATEMENT, {"key": key}).one_or_none()


def _public_key(folder: Path | None, key: str) -> RSAPublicKey | None:
    """Load a credential's public key; ``key`` is one that the registry holds, so it names no other folder."""
    if folder is None:
        return None
    path = folder / f"{key}.pem"
    try:
        loaded = load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.error("public_key.unreadable", path=str(path), error=type(error).__name__)
        raise RegistryUnavailable(f"{path} is no readable public key") from None
    if not isinstance(loaded, RSAPublicKey):
        _log.error("public_key.not_rsa", path=str(path))
        raise RegistryUnavailable(f"{path} is no RSA public key")
    return loaded
