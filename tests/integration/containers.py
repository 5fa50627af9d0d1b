"""A real Kafka and a real ClickHouse server in containers, for the twin of the local suite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import docker
import httpx
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

from tests.support.pipeline import ROOT
from tests.support.ports import free_ports

_POM = (ROOT / "deploy" / "local" / "kafka" / "pom.xml").read_text("utf-8")
KAFKA_IMAGE = "apache/kafka:" + re.findall(r"<kafka.version>(.+)</kafka.version>", _POM)[0]
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:26.8"

_USER, _PASSWORD = "midstream", "of-a-container"
_START_TIMEOUT_S = 120


@cache
def why_no_docker() -> str:
    """Return why no Docker engine can be used, "" if one can."""
    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except DockerException as error:
        return f"no Docker engine answers: {error}"
    return ""


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Run Kafka and ClickHouse; yield the settings ``kafka`` and ``clickhouse`` that lead to them."""
    with ExitStack() as stack:
        yield {"kafka": stack.enter_context(_kafka()), "clickhouse": stack.enter_context(_clickhouse())}


@contextmanager
def _kafka() -> Iterator[str]:
    # Kafka tells its clients where it is, so that the port outside must be known before it starts.
    [port] = free_ports(1)
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
    servers = f"{DockerClient().host()}:{port}"
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://{servers}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        "SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    for name, value in settings.items():
        container = container.with_env(f"KAFKA_{name}", value)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_TIMEOUT_S))
    with container:
        yield servers


@contextmanager
def _clickhouse() -> Iterator[str]:
    container = (
        DockerContainer(CLICKHOUSE_IMAGE)
        .with_exposed_ports(8123)
        .with_env("CLICKHOUSE_USER", _USER)
        .with_env("CLICKHOUSE_PASSWORD", _PASSWORD)
        .with_env("CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT", "1")
    )
    container.waiting_for(HttpWaitStrategy(8123, "/ping").with_startup_timeout(_START_TIMEOUT_S))
    with container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(8123)
        url = httpx.URL(f"http://{host}:{port}/midstream", username=_USER, password=_PASSWORD)
        yield str(url)
