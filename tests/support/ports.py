"""Ports that nobody listens on."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

PORT_SETTINGS = (
    "port",
    "local_kafka_port",
    "local_kafka_controller_port",
    "local_clickhouse_port",
    "validate_metrics_port",
    "store_metrics_port",
    "devices_metrics_port",
    "jobs_metrics_port",
)

# Below the range from which systems take the ports of outgoing connections (Linux: from 32768): a port there could be
# taken by a client while the process that listens on it is being started again.
_CANDIDATES = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, all different."""
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
            if len(found) == count:
                return found
            one = stack.enter_context(socket.socket())
            # As servers do, so that a port whose connections are just closing counts as free.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    raise AssertionError(f"no {count} free ports")


def port_settings() -> dict[str, int]:
    """Return a free port for each setting of one, by the setting's name."""
    return dict(zip(PORT_SETTINGS, free_ports(len(PORT_SETTINGS)), strict=True))
