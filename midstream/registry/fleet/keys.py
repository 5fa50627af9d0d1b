"""Access keys of devices and hardware keys of models: random, shown once, kept as their SHA-256.

They are 256 bits of a random source, so a plain hash tells nothing of them.
"""

from __future__ import annotations

import hashlib
import secrets

_KEY_BYTES = 32
MAX_KEY_CHARS = 256


def new_key() -> str:
    """Return a key that nobody had before."""
    return secrets.token_urlsafe(_KEY_BYTES)


def hash_key(key: str) -> bytes:
    """Return what is kept of a key, and looked for: 32 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
