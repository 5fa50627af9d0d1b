"""Ports: whether ours are free, and if not, who has them."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

import psutil

from deploy.local.errors import LocalError
from midstream.settings import Settings


@dataclass(frozen=True, slots=True)
class PortUse:
    """A port that the pipeline will listen on."""

    port: int
    host: str
    setting: str
    purpose: str


def ports_of(settings: Settings) -> list[PortUse]:
    """Return the ports that a pipeline with these settings listens on."""
    local = "127.0.0.1"
    uses = [
        PortUse(settings.port, settings.host, "MIDSTREAM_PORT", "the base URL"),
        PortUse(settings.validate_metrics_port, local, "MIDSTREAM_VALIDATE_METRICS_PORT", "metrics of validate"),
        PortUse(settings.store_metrics_port, local, "MIDSTREAM_STORE_METRICS_PORT", "metrics of store"),
        PortUse(settings.devices_metrics_port, local, "MIDSTREAM_DEVICES_METRICS_PORT", "metrics of devices"),
        PortUse(settings.jobs_metrics_port, local, "MIDSTREAM_JOBS_METRICS_PORT", "metrics of jobs"),
    ]
    if not settings.kafka:
        uses.append(PortUse(settings.local_kafka_port, local, "MIDSTREAM_LOCAL_KAFKA_PORT", "Kafka"))
        uses.append(
            PortUse(
                settings.local_kafka_controller_port,
                local,
                "MIDSTREAM_LOCAL_KAFKA_CONTROLLER_PORT",
                "Kafka's controller",
            )
        )
    if not settings.clickhouse:
        uses.append(PortUse(settings.local_clickhouse_port, local, "MIDSTREAM_LOCAL_CLICKHOUSE_PORT", "ClickHouse"))
    return uses


def check_ports(settings: Settings) -> None:
    """See that every port can be listened on.

    Raises:
        LocalError: with a line for each that cannot, naming its holder where that can be seen.
    """
    uses = ports_of(settings)
    problems = []
    by_port: dict[int, PortUse] = {}
    for use in uses:
        other = by_port.setdefault(use.port, use)
        if other is not use:
            problems.append(f"{use.setting} and {other.setting} are both {use.port}: give one of them another port")
            continue
        reason = _why_not(use)
        if reason is not None:
            problems.append(f"port {use.port} ({use.purpose}) {reason}: free it, or set {use.setting} to another port")
    if problems:
        raise LocalError("\n".join(problems))


def _why_not(use: PortUse) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(use.host, use.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections of an earlier run that linger in TIME_WAIT don't count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"is in use by {_holder(use.port)}"
        return f"on {use.host} cannot be listened on ({error.strerror})"
    return None


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid is not None:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:  # macOS shows connections to root only; or the process has just ended
        pass
    return "another program (which one cannot be seen by this user)"
