"""Why a store does not let us in: one code for each cause, the same in logs, in errors and in ``midstream check``.

``docs/connections.md`` says what to do about each; a test fails when one is missing there.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from enum import StrEnum


class Fault(StrEnum):
    """Why a connection, or what was asked over it, failed."""

    UNREACHABLE = "UNREACHABLE"
    CLOSED = "CLOSED"
    NOT_TLS = "NOT_TLS"
    UNKNOWN_CA = "UNKNOWN_CA"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    WRONG_HOST_NAME = "WRONG_HOST_NAME"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    OUR_CERTIFICATE_REFUSED = "OUR_CERTIFICATE_REFUSED"
    MECHANISM_REFUSED = "MECHANISM_REFUSED"
    LOGIN_REFUSED = "LOGIN_REFUSED"
    NOT_ALLOWED = "NOT_ALLOWED"

    @property
    def is_final(self) -> bool:
        """Whether trying again changes nothing until somebody changes a setting, a user or a certificate."""
        return self not in (Fault.UNREACHABLE, Fault.CLOSED)


MEANINGS: dict[Fault, str] = {
    Fault.UNREACHABLE: "nothing answers there",
    Fault.CLOSED: "it closes the connection at once, as when the port speaks another security protocol than is set",
    Fault.NOT_TLS: "it does not speak TLS there, or none that we accept",
    Fault.UNKNOWN_CA: "its certificate is from a CA that we do not trust",
    Fault.CERTIFICATE_EXPIRED: "its certificate has expired or is not valid yet",
    Fault.WRONG_HOST_NAME: "its certificate is for another host name",
    Fault.CERTIFICATE_INVALID: "its certificate is not valid",
    Fault.OUR_CERTIFICATE_REFUSED: "it wants a certificate of ours, or refuses the one it was shown",
    Fault.MECHANISM_REFUSED: "it does not offer that SASL mechanism",
    Fault.LOGIN_REFUSED: "it refuses user or password",
    Fault.NOT_ALLOWED: "our user may not do that",
}

# OpenSSL's X509_V_ERR_... (x509_vfy.h)
_VERIFY_CODES = {
    9: Fault.CERTIFICATE_EXPIRED,  # CERT_NOT_YET_VALID
    10: Fault.CERTIFICATE_EXPIRED,  # CERT_HAS_EXPIRED
    18: Fault.UNKNOWN_CA,  # DEPTH_ZERO_SELF_SIGNED_CERT
    19: Fault.UNKNOWN_CA,  # SELF_SIGNED_CERT_IN_CHAIN
    20: Fault.UNKNOWN_CA,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: Fault.UNKNOWN_CA,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
    62: Fault.WRONG_HOST_NAME,  # HOSTNAME_MISMATCH
    64: Fault.WRONG_HOST_NAME,  # IP_ADDRESS_MISMATCH
}


def tls_fault(error: BaseException) -> Fault | None:
    """Return what TLS says is wrong, from the error or those that it was raised from; None if none is of TLS."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _VERIFY_CODES.get(one.verify_code, Fault.CERTIFICATE_INVALID)
        if isinstance(one, ssl.SSLError) and one.reason:
            if isinstance(one, ssl.SSLEOFError):
                return Fault.CLOSED
            return Fault.OUR_CERTIFICATE_REFUSED if _is_about_ours(one.reason) else Fault.NOT_TLS
    return None


def _is_about_ours(reason: str) -> bool:
    """An alert is what the other side says: about a certificate, it can only be about ours."""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all that it was raised from or holds (urllib3 keeps them as arguments), each once."""
    seen: set[int] = set()
    left: list[object] = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__context__, one.__cause__, getattr(one, "reason", None), *one.args]
