"""What can go wrong with the registry. No message ever holds a secret or a token."""

from __future__ import annotations


class RegistryError(Exception):
    """The registry refused: the message says why, for an operator to read."""


class RegistryUnavailable(RegistryError):  # noqa: N818  a state, not a fault of the caller
    """The registry cannot be read or written now: over HTTP 503, never 401."""


class CredentialConflict(RegistryError):  # noqa: N818  the HTTP status's own name
    """The key is taken: by another name, by an operator, or by a credential that is revoked or expired."""


class UnknownCredential(RegistryError):  # noqa: N818  says what the key is
    """No credential has this key or name."""


class Unauthorized(Exception):  # noqa: N818  the HTTP status's own name
    """The request does not prove who sends it. ``reason`` is for logs; it holds nothing of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
