"""How every client of Kafka is connected: the one place that turns the settings into its arguments."""

from __future__ import annotations

from typing import Any

from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaConnectionError

from midstream.settings import Settings, SettingsError
from midstream.settings.tls import client_context


class FilesUnusableError(SettingsError, KafkaConnectionError):  # type: ignore[misc]  # aiokafka has no types
    """Certificates and key cannot be used now. At a start they were: they are being renewed, and Kafka counts as away
    until they fit each other."""


def server_addresses(settings: Settings) -> list[tuple[str, int]]:
    """Return host and port of each bootstrap server, as clients of aiokafka read them."""
    return [(host, port) for host, port, _ in collect_hosts(settings.kafka_servers, randomize=False)]


def connection(settings: Settings) -> dict[str, Any]:
    """Return the arguments by which a client of aiokafka reaches Kafka: ``AIOKafkaProducer(**connection(settings))``.

    Certificates and keys are read each time, so that a client made after they were renewed has the new ones.

    Raises:
        FilesUnusableError: a file of certificates or the key cannot be used.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_servers,
        "security_protocol": settings.kafka_security.upper(),
    }
    if settings.kafka_has_tls:
        try:
            arguments["ssl_context"] = client_context(
                "MIDSTREAM_KAFKA", settings.kafka_ca, settings.kafka_certificate, settings.kafka_key
            )
        except (SettingsError, OSError) as error:
            raise FilesUnusableError(str(error)) from None
    if settings.kafka_has_users and settings.kafka_password is not None:
        arguments["sasl_mechanism"] = settings.kafka_sasl_mechanism
        arguments["sasl_plain_username"] = settings.kafka_user
        arguments["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return arguments
