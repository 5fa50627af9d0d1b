"""Waits, at a worker's start, until something listens where Kafka and ClickHouse are.

A worker that cannot work ends, and whoever supervises it starts it again after a pause that grows: to minutes in
Kubernetes and Docker. One that waits here instead goes on a second after the store is back.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence

from midstream.clickhouse.client import parse_dsn
from midstream.logs import get_logger
from midstream.settings import Settings

log = get_logger(__name__)

Address = tuple[str, int]

_CONNECT_TIMEOUT_S = 2.0
_INTERVAL_S = 1.0
_TELL_EVERY_S = 60.0


def clickhouse_addresses(settings: Settings) -> list[Address]:
    """Return host and port of ClickHouse.

    Raises:
        SettingsError: the DSN is malformed.
    """
    dsn = parse_dsn(settings.clickhouse_dsn)
    return [(dsn.host, dsn.port)]


def wait_until_reachable(addresses: Mapping[str, Sequence[Address]]) -> None:
    """Return once a server of each store, by its name, can be connected to: after as many tries as it takes, each under
    a time limit. A signal ends it, as nothing has been begun yet.
    """
    for store, servers in addresses.items():
        told_at = float("-inf")
        while not _any_listens(servers):
            if time.monotonic() - told_at >= _TELL_EVERY_S:
                told_at = time.monotonic()
                log.warning("worker.waits", store=store, servers=[f"{host}:{port}" for host, port in servers])
            time.sleep(_INTERVAL_S)


def _any_listens(servers: Sequence[Address]) -> bool:
    for address in servers:
        try:
            with socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S):
                return True
        except OSError:
            continue
    return False
