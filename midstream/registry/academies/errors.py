"""What the academies' registry refuses."""

from __future__ import annotations

from midstream.registry.errors import RegistryError


class AcademyError(RegistryError):
    """What was asked cannot be; the message says why, for an operator to read."""


class TakenError(AcademyError):
    """There is one of this id already."""


class NotThereError(AcademyError):
    """There is no such academy, user or grant."""


class NotProvidedError(Exception):
    """A request names nobody in the way of a user's token."""


class InvalidTokenError(Exception):
    """A request's token is nobody's, or was ended."""
