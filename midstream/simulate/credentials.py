"""The identities of simulated devices, kept in a file of the owner's alone: a real device keeps its own in flash."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """What a device was given when it registered."""

    id: str
    access_key: str


class Kept(msgspec.Struct):
    """The file's contents: the key of the model, and the devices by serial number."""

    hardware_key: str = ""
    devices: dict[str, Identity] = {}


class CredentialsError(Exception):
    """The file cannot be used; the message says why."""


def read_kept(path: Path) -> Kept:
    """Return what is kept; nothing where there is no file.

    Raises:
        CredentialsError: it cannot be read, or is no such file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (OSError, msgspec.MsgspecError) as error:
        raise CredentialsError(f"{path}: {error}") from None


def write_kept(path: Path, kept: Kept) -> None:
    """Replace the file as a whole; nobody else may read it.

    Raises:
        CredentialsError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(kept))
        temporary.replace(path)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror or error}") from None
