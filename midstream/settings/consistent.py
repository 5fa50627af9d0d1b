"""Whether the settings of connections can be used: what would be silently unprotected is refused."""

from __future__ import annotations

import re

from midstream.settings.connections import Connections
from midstream.settings.errors import SettingsError
from midstream.settings.tls import client_context

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(:[0-9]{1,5})?")


def problems_of(settings: Connections) -> list[str]:
    """Return a line for each setting that does not fit the others, naming it and what to do; none holds a password."""
    return [*_kafka(settings), *_clickhouse(settings)] or _files(settings)


def _kafka(settings: Connections) -> list[str]:
    security = settings.kafka_security
    if settings.kafka and not all(_SERVER.fullmatch(server.strip()) for server in settings.kafka.split(",")):
        return ["MIDSTREAM_KAFKA: expected host:port,... ; user and password have settings of their own"]
    if not settings.kafka and security != "plaintext":
        return ["MIDSTREAM_KAFKA_SECURITY: the local Kafka speaks `plaintext`; name another by MIDSTREAM_KAFKA"]
    problems = []
    password = settings.kafka_password and settings.kafka_password.get_secret_value()
    login = {"MIDSTREAM_KAFKA_USER": bool(settings.kafka_user), "MIDSTREAM_KAFKA_PASSWORD": bool(password)}
    if security.startswith("sasl_"):
        problems += [
            f"{name}: MIDSTREAM_KAFKA_SECURITY={security} needs it" for name, value in login.items() if not value
        ]
    else:
        problems += [
            f"{name}: unused with MIDSTREAM_KAFKA_SECURITY={security}; set that to `sasl_ssl`, or leave this out"
            for name, said in login.items()
            if said
        ]
    files = {
        "MIDSTREAM_KAFKA_CA": settings.kafka_ca,
        "MIDSTREAM_KAFKA_CERTIFICATE": settings.kafka_certificate,
        "MIDSTREAM_KAFKA_KEY": settings.kafka_key,
    }
    if not security.endswith("ssl"):
        problems += [
            f"{name}: unused with MIDSTREAM_KAFKA_SECURITY={security}; set that to `ssl` or `sasl_ssl`, or leave this "
            "out"
            for name, path in files.items()
            if path
        ]
    if bool(settings.kafka_certificate) != bool(settings.kafka_key):
        problems.append("MIDSTREAM_KAFKA_CERTIFICATE, MIDSTREAM_KAFKA_KEY: give both or none")
    return problems


def _clickhouse(settings: Connections) -> list[str]:
    if settings.clickhouse_ca and not settings.clickhouse.lower().startswith("https:"):
        return ["MIDSTREAM_CLICKHOUSE_CA: unused unless MIDSTREAM_CLICKHOUSE begins with https://"]
    return []


def _files(settings: Connections) -> list[str]:
    problems = []
    for prefix, files in (
        ("MIDSTREAM_KAFKA", (settings.kafka_ca, settings.kafka_certificate, settings.kafka_key)),
        ("MIDSTREAM_CLICKHOUSE", (settings.clickhouse_ca,)),
    ):
        if any(files):
            try:
                client_context(prefix, *files)
            except SettingsError as error:
                problems.append(str(error))
    return problems
