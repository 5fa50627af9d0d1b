"""Erased objects: of their ids only a keyed hash is kept, from which their pseudonym is made. Pure.

Whoever holds the hashes and not the key cannot try out ids. The same id gives the same pseudonym for ever, so that the
events of one erased person still count as those of one.
"""

from __future__ import annotations

import hashlib
import hmac

from midstream.dimensions import Dimension, InternalType

DIGEST_DIGITS = 24
SUBKEY = b"midstream erased ids v1"
"""Label of the key's derivation: see :func:`midstream.registry.keyfile.derive_key`."""

_PREFIX = "erased-"
_VERSION = 1


class ErasedKey:
    """Makes digests of ids. Threads may share it."""

    def __init__(self, secret: bytes) -> None:
        self._begun = hmac.new(secret, digestmod=hashlib.sha256)

    def digest(self, type_: str, id_: str) -> str:
        """Return the first 24 hexadecimal digits, lower case, of the HMAC-SHA256 of type, NUL and id."""
        one = self._begun.copy()  # a third less than beginning anew
        one.update(f"{type_}\0{id_}".encode())
        return one.hexdigest()[:DIGEST_DIGITS]


def pseudonym(digest: str) -> str:
    """Return what stands in place of the id."""
    return _PREFIX + digest


def erased_row(digest: str, updated_at_ms: int) -> Dimension:
    """Return the row of the topic ``dimensions`` that tells everybody of an erased object. Written again it is the
    same."""
    return Dimension(InternalType.ERASED, digest, "{}", _VERSION, False, updated_at_ms)
