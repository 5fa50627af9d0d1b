"""HS256 secrets must be read, so they are encrypted (Fernet) under ``<home>/registry.key``, of mode 0600, or
under the file that ``MIDSTREAM_REGISTRY_KEY`` names.

Machines that share one PostgreSQL registry must share the file. Without it the secrets are lost.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from midstream.registry.errors import RegistryUnavailable
from midstream.settings import Settings

_KEY_BYTES = 32


def key_path(settings: Settings) -> Path:
    """Return where the key file is."""
    return settings.registry_key_file


def ensure_key(settings: Settings) -> None:
    """Create the key file unless it is there; whole or not at all, also when two do it at once."""
    path = key_path(settings)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return  # another process was first, and its key counts
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        part.unlink(missing_ok=True)


def derive_key(settings: Settings, label: bytes) -> bytes:
    """Return a key of 32 bytes for one purpose: the same from the same key file and label.

    Raises:
        RegistryUnavailable: the key file is missing or cannot be read.
    """
    path = key_path(settings)
    try:
        secret = base64.urlsafe_b64decode(path.read_bytes().strip())
    except FileNotFoundError:
        raise RegistryUnavailable(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise RegistryUnavailable(f"{path} cannot be used: {type(error).__name__}") from None
    if len(secret) != _KEY_BYTES:
        raise RegistryUnavailable(f"{path} is no key file")
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=label).derive(secret)


class Cipher:
    """Encrypts and decrypts secrets with the key file, which is read at the first use."""

    def __init__(self, settings: Settings) -> None:
        self._path = key_path(settings)
        self._fernet: Fernet | None = None

    def encrypt(self, secret: str) -> bytes:
        """Return the Fernet token of ``secret``.

        Raises:
            RegistryUnavailable: the key file is missing or is none.
        """
        return self._load().encrypt(secret.encode())

    def decrypt(self, token: bytes) -> str:
        """Return the secret.

        Raises:
            RegistryUnavailable: the key file is missing, is none, or not the secret's own.
        """
        secret = self.read(token)
        if secret is None:
            raise RegistryUnavailable(f"a secret cannot be decrypted: {self._path} is not the registry's key")
        return secret

    def read(self, token: bytes) -> str | None:
        """Return what a token that anybody may have sent holds; None when it was not made with this key.

        Raises:
            RegistryUnavailable: the key file is missing or is none.
        """
        try:
            return self._load().decrypt(token).decode()
        except InvalidToken:
            self._fernet = None  # the right file may be put back while the process runs
            return None

    def _load(self) -> Fernet:
        if self._fernet is None:
            try:
                self._fernet = Fernet(self._path.read_bytes().strip())
            except FileNotFoundError:
                raise RegistryUnavailable(
                    f"{self._path} is missing: restore it, or run `midstream migrate` on an empty registry"
                ) from None
            except (OSError, ValueError) as error:
                raise RegistryUnavailable(f"{self._path} cannot be used: {type(error).__name__}") from None
        return self._fernet
