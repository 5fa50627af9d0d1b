"""How long certificates are still valid."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

from cryptography import x509

from midstream.check.result import Result, fail, ok, warn
from midstream.faults import MEANINGS, Fault, tls_fault

WARN_DAYS = 30
"""Certificates of 90 days are renewed when a third of their time is left."""


def judge_expiry(check: str, where: str, left_s: float) -> Result:
    """Judge the seconds that a certificate is still valid."""
    days = left_s / 86_400
    change = f"renew the certificate of {where}"
    if days < 0:
        return fail(check, f"{where}: expired {-days:.0f} days ago", change)
    if days < WARN_DAYS:
        return warn(check, f"{where}: valid for {days:.0f} more days", change)
    return ok(check, f"{where}: valid for {days:.0f} more days")


def check_own_certificate(check: str, path: Path) -> Result:
    """Return for how long a certificate of ours is valid."""
    # Those of the CAs in between may stand in the file too: the first is ours.
    ours = x509.load_pem_x509_certificate(path.read_bytes())
    return judge_expiry(check, str(path), ours.not_valid_after_utc.timestamp() - time.time())


def check_certificate(check: str, host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> Result:
    """Return for how long the certificate that is shown there is valid."""
    where = f"{host}:{port}"
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            shown = secured.getpeercert()
    except (OSError, ValueError) as error:
        fault = tls_fault(error) or Fault.UNREACHABLE
        return warn(check, f"{fault}: {where}: {MEANINGS[fault]}", f"see what listens on {where}")
    assert shown is not None  # noqa: S101 - it was checked, so it was shown
    return judge_expiry(check, where, ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time())
