"""What the fleet's registry refuses, by the HTTP status that says so."""

from __future__ import annotations

from midstream.registry.errors import RegistryError


class FleetError(RegistryError):
    """A request that is refused; the message is for the device's maker or the operator."""

    status = 422


class NotThereError(FleetError):
    """There is no such thing."""

    status = 404


class NotAllowedError(FleetError):
    """It is there, and not for this caller."""

    status = 403


class TooOftenError(FleetError):
    """More often than allowed."""

    status = 429


class UnknownKeyError(FleetError):
    """The access key is nobody's."""

    status = 401
