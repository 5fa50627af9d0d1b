"""What the datasets' registry refuses."""

from __future__ import annotations

from midstream.registry.errors import RegistryError


class ExhaustError(RegistryError):
    """What was asked cannot be; the message says why, for an operator to read."""


class TakenError(ExhaustError):
    """There is a licence of this name already."""


class NotThereError(ExhaustError):
    """There is no such dataset, licence or right."""


class TooManyError(ExhaustError):
    """A licence has as many requests as it may have."""


class LoginError(Exception):
    """A licence key is missing, nobody's, was revoked or has expired. ``reason`` is for logs; it holds no key."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
