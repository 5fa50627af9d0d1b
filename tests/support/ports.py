"""Ports that nobody listens on."""

from __future__ import annotations

import socket
from contextlib import ExitStack

PORT_SETTINGS = (
    "port",
    "local_kafka_port",
    "local_kafka_controller_port",
    "local_clickhouse_port",
    "validate_metrics_port",
    "store_metrics_port",
)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def port_settings() -> dict[str, int]:
    """Return a free port for each setting of one, by the setting's name."""
    return dict(zip(PORT_SETTINGS, free_ports(len(PORT_SETTINGS)), strict=True))
