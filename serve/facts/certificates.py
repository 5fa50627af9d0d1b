"""When the certificates expire of the TLS endpoints that the settings name, and our own, which Kafka asks for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from midstream.clickhouse.client import parse_dsn
from midstream.kafka.connection import server_addresses
from midstream.logs import get_logger
from midstream.metrics import CERTIFICATE_EXPIRES_SECONDS
from midstream.settings import Settings

_log = get_logger(__name__)

_WAIT_S = 5.0

OWN = "MIDSTREAM_KAFKA_CERTIFICATE"
"""What our own certificate is called among endpoints."""


def endpoints_of(settings: Settings) -> list[tuple[str, int]]:
    """Return host and port of each TLS endpoint that the settings name.

    Raises:
        SettingsError: the ClickHouse DSN is malformed.
    """
    found: list[tuple[str, int]] = []
    dsn = parse_dsn(settings.clickhouse_dsn)
    if dsn.interface == "https":
        found.append((dsn.host, dsn.port))
    if settings.kafka_has_tls:
        found += server_addresses(settings)
    public = urlsplit(settings.public_url)
    if public.scheme == "https" and public.hostname:
        found.append((public.hostname, public.port or 443))
    return list(dict.fromkeys(found))


class Certificates:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._endpoints: Sequence[tuple[str, int]] = endpoints_of(settings)
        self._own = settings.kafka_certificate

    async def look(self) -> None:
        """Look at each once; one that does not answer keeps what was last known of it."""
        for host, port in self._endpoints:
            try:
                async with asyncio.timeout(_WAIT_S):
                    expires = await expires_at(host, port)
            except (OSError, TimeoutError, ValueError) as error:
                _log.warning("facts.certificate_unseen", endpoint=f"{host}:{port}", error=str(error) or "no answer")
            else:
                CERTIFICATE_EXPIRES_SECONDS.labels(f"{host}:{port}").set(expires)
        if self._own is not None:
            try:
                expires = await asyncio.to_thread(own_expires_at, self._own)
            except (OSError, ValueError) as error:
                _log.warning("facts.certificate_unseen", endpoint=OWN, error=str(error))
            else:
                CERTIFICATE_EXPIRES_SECONDS.labels(OWN).set(expires)


async def expires_at(host: str, port: int) -> float:
    """Return when the certificate of an endpoint expires, epoch seconds.

    Raises:
        OSError, ValueError: it does not answer, or not with a certificate.
    """
    from cryptography import x509  # some MB, which those without TLS endpoints do without

    # Only the date is read, and nothing is sent: a certificate that is expired or not trusted has one too.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return x509.load_der_x509_certificate(der or b"").not_valid_after_utc.timestamp()


def own_expires_at(path: Path) -> float:
    """Return when the first certificate of a PEM file expires, epoch seconds; those of CAs may stand behind it.

    Raises:
        OSError, ValueError: there is none.
    """
    from cryptography import x509

    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
