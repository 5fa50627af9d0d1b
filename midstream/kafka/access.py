"""Whether Kafka lets us in, asked before anything else is: aiokafka's own error says only that it could not connect."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from midstream.faults import MEANINGS, Fault, tls_fault
from midstream.kafka.connection import FilesUnusableError, connection, server_addresses
from midstream.logs import get_logger
from midstream.settings import Settings

TIMEOUT_S = 5.0
_WATCH_S = 20.0

_log = get_logger(__name__)


class KafkaRefusedError(Exception):
    """Kafka does not let us in, and will not until somebody changes something; the message begins with the code."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a server could not be used. ``said`` is what it, or TLS, says itself; no password is in it."""

    server: str
    fault: Fault
    said: str

    def __str__(self) -> str:
        return f"{self.fault}: Kafka at {self.server}: {MEANINGS[self.fault]} ({self.said})"


async def look(settings: Settings, timeout_s: float = TIMEOUT_S) -> list[Refusal]:
    """Connect to each bootstrap server, all at once; return why those that cannot be used cannot.

    Raises:
        FilesUnusableError: a file of certificates or the key cannot be used.
    """
    arguments = connection(settings)
    del arguments["bootstrap_servers"]
    servers = server_addresses(settings)
    found = await asyncio.gather(*(_try(host, port, arguments, timeout_s) for host, port in servers))
    return [refusal for refusal in found if refusal is not None]


def require_access_at_start(settings: Settings) -> bool:
    """Say whether a process may start: see :func:`require_access`. If not, the log says why, with the code.

    Started again and again, as supervisors do, it says so each time; none waits in silence.
    """
    try:
        asyncio.run(require_access(settings))
    except KafkaRefusedError as error:
        _log.critical("kafka.refused", code=error.refusal.fault.value, error=str(error))
        return False
    except FilesUnusableError as error:
        _log.critical("kafka.files_unusable", error=str(error))
        return False
    return True


async def require_access(settings: Settings) -> None:
    """Return when a server lets us in, and when none can be reached: Kafka may come later.

    Raises:
        KafkaRefusedError: none lets us in, and at least one says no for a reason that waiting does not change.
        FilesUnusableError: a file of certificates or the key cannot be used.
    """
    refusals = await look(settings)
    for refusal in refusals:
        if not refusal.fault.is_final:
            _log.warning("kafka.not_reached", code=refusal.fault.value, error=str(refusal))
    final = [refusal for refusal in refusals if refusal.fault.is_final]
    if final and len(refusals) == len(server_addresses(settings)):
        raise KafkaRefusedError(final[0])


async def watch_access(settings: Settings) -> None:
    """Return at once where nobody is refused; else only by an error, once Kafka refuses us for good.

    A password that was changed or a certificate that has expired is met when a connection is made anew. The clients
    themselves would try again for ever.

    Raises:
        KafkaRefusedError: see :func:`require_access`.
    """
    while settings.kafka_security != "plaintext":
        await asyncio.sleep(_WATCH_S)
        try:
            await require_access(settings)
        except FilesUnusableError as error:
            _log.warning("kafka.files_unusable", error=str(error))


async def _try(host: str, port: int, arguments: dict[str, object], timeout_s: float) -> Refusal | None:
    try:
        async with asyncio.timeout(timeout_s):
            opened = await create_conn(host, port, client_id="midstream-access", **arguments)
            try:
                await opened.send(MetadataRequest([]))
            finally:
                await opened.close()
    except TimeoutError:
        return Refusal(f"{host}:{port}", Fault.UNREACHABLE, f"no answer in {timeout_s:g} s")
    except (KafkaError, OSError) as error:
        return Refusal(f"{host}:{port}", _fault(error), _words(error))
    return None


def _fault(error: KafkaError | OSError) -> Fault:
    if isinstance(error, (SaslAuthenticationFailed, AuthenticationFailedError)):
        return Fault.LOGIN_REFUSED
    if isinstance(error, UnsupportedSaslMechanismError):
        return Fault.MECHANISM_REFUSED
    if (fault := tls_fault(error)) is not None:
        return fault
    # aiokafka's own error means that a connection was made.
    return Fault.CLOSED if isinstance(error, (KafkaConnectionError, ConnectionResetError)) else Fault.UNREACHABLE


def _words(error: KafkaError | OSError) -> str:
    """What the innermost error says: aiokafka's own is often only that the connection was closed."""
    while isinstance(error.__cause__, (KafkaError, OSError)):
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
