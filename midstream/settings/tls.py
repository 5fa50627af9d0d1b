"""TLS as a client: certificates are always checked, with the name of the host."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

from midstream.settings.errors import SettingsError

_READ_BY_OTHERS = 0o007


def client_context(
    prefix: str, ca: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return a context that trusts ``ca`` (None: what this machine trusts) and shows ``certificate`` when asked to.

    Args:
        prefix: what the settings are called up to ``_CA``, ``_CERTIFICATE`` and ``_KEY``, for the messages.
        ca: PEM file of one or more certificates.
        certificate: PEM file of our certificate and those between it and its CA.
        key: PEM file of its key, without a passphrase, which others must not read.

    Raises:
        SettingsError: a file cannot be read or used; the message names the setting.
    """
    context = ssl.create_default_context() if ca is None else _trusting(f"{prefix}_CA", ca)
    if certificate is not None and key is not None:
        _see_readable(f"{prefix}_CERTIFICATE", certificate)
        _see_readable(f"{prefix}_KEY", key)
        if key.stat().st_mode & _READ_BY_OTHERS:
            raise SettingsError(f"{prefix}_KEY: {key} can be read or changed by others: chmod 600 {key}")

        def no_passphrase() -> NoReturn:  # OpenSSL would ask for it on the terminal
            raise SettingsError(f"{prefix}_KEY: {key} is protected by a passphrase: give one without")

        try:
            context.load_cert_chain(certificate, key, no_passphrase)
        except ssl.SSLError as error:
            raise SettingsError(
                f"{prefix}_CERTIFICATE, {prefix}_KEY: {certificate} and {key} are no PEM files of a certificate and "
                f"its key ({error.reason or 'unreadable'})"
            ) from None
    return context


def _trusting(name: str, path: Path) -> ssl.SSLContext:
    _see_readable(name, path)
    text = path.read_text("ascii", errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise SettingsError(f"{name}: {path} holds no certificate in PEM")
    try:
        return ssl.create_default_context(cadata=text)
    except ssl.SSLError as error:
        raise SettingsError(f"{name}: {path} cannot be read as certificates ({error.reason or 'unreadable'})") from None


def _see_readable(name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise SettingsError(f"{name}: {path}: {error.strerror}") from None
