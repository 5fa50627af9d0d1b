"""What is told of ClickHouse, the registry and Kafka while they answer, refuse and are away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from midstream import metrics
from midstream.clickhouse.client import ClickHouseError
from midstream.registry.migrate import migrate
from midstream.settings import Settings
from serve.facts import clickhouse, kafka, measured
from serve.facts.clickhouse import ClickHouseFacts
from serve.facts.kafka import KafkaFacts
from serve.facts.registry import RegistryFacts
from tests.support.ports import free_ports
from tests.support.waiting import wait_until


def told(metric: MetricWrapperBase) -> dict[str, float]:
    """Return the values by their only label, "" where there is none."""
    return {"".join(sample.labels.values()): sample.value for sample in metric.collect()[0].samples}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a home without anything, and of ports where nobody listens."""
    kafka_port, clickhouse_port = free_ports(2)
    return Settings.model_validate(
        {
            "home": tmp_path,
            "registry": "",
            "kafka": f"127.0.0.1:{kafka_port}",
            "clickhouse": f"http://127.0.0.1:{clickhouse_port}/midstream",
        }
    )


ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "system.disks": [("default", 30, 100), ("cold", 5, 50)],
    "system.parts": [("learning_events", 17)],
    "merge_tree_settings": [(1000,)],
    "system.metrics": [(2_000,)],
    "server_settings": [(8_000,)],
}


class Answering:
    """A client of a ClickHouse that answers, but what is in ``refused`` by an error of its own."""

    def __init__(self, refused: dict[str, ClickHouseError] | None = None) -> None:
        self.refused = refused or {}

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        for of, error in self.refused.items():
            if of in sql:
                raise error
        return next((rows for of, rows in ANSWERS.items() if of in sql), [(1,)])

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def facts(settings: Settings) -> Iterator[ClickHouseFacts]:
    metrics.PARTITION_PARTS.clear()
    metrics.DISK_FREE_BYTES.clear()
    opened = ClickHouseFacts(settings)
    yield opened
    opened.close()


async def test_clickhouse_says_how_much_room_it_has(facts: ClickHouseFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_client", Answering())
    monkeypatch.setattr(facts, "_probe", Answering())
    await facts.reach()
    await facts.look()
    assert told(metrics.REACHABLE)["clickhouse"] == 1
    assert told(metrics.DISK_FREE_BYTES) == {"clickhouse/default": 30, "clickhouse/cold": 5}
    assert told(metrics.DISK_TOTAL_BYTES)["clickhouse/cold"] == 50
    assert told(metrics.PARTITION_PARTS) == {"learning_events": 17}
    assert told(metrics.PARTITION_PARTS_LIMIT) == {"": 1000}
    assert told(metrics.CLICKHOUSE_MEMORY_BYTES) == {"": 2_000}
    assert told(metrics.CLICKHOUSE_MEMORY_LIMIT_BYTES) == {"": 8_000}


async def test_what_is_not_granted_is_said_once_and_the_rest_is_told(
    facts: ClickHouseFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    class Log:
        def warning(self, event: str, **said: object) -> None:
            lines.append(f"{event} {said['asked']}")

    monkeypatch.setattr(clickhouse, "_log", Log())
    monkeypatch.setattr(facts, "_client", Answering({"system.disks": ClickHouseError("ACCESS_DENIED", 497)}))
    await facts.look()
    await facts.look()
    assert lines == ["facts.clickhouse_refuses disks"]
    assert told(metrics.DISK_FREE_BYTES) == {}
    assert told(metrics.PARTITION_PARTS) == {"learning_events": 17}


async def test_all_are_away(settings: Settings) -> None:
    metrics.LAG_SECONDS.labels("g", "t").set(3)
    metrics.DEVICES_SEEN.labels("reporting").set(3)
    of_kafka, of_clickhouse, of_registry = KafkaFacts(settings), ClickHouseFacts(settings), RegistryFacts(settings)
    async with asyncio.timeout(20):
        await of_kafka.look()
        await of_clickhouse.reach()
        await of_clickhouse.look()
        await of_registry.reach()
        await of_registry.look()
    assert told(metrics.REACHABLE) == {"kafka": 0, "clickhouse": 0, "registry": 0}
    assert told(metrics.LAG_SECONDS) == {}
    assert told(metrics.DEVICES_SEEN) == {}
    await of_kafka.close()
    of_clickhouse.close()
    of_registry.close()


async def test_a_broker_that_is_silent_is_away_in_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "REACH_S", 0.5)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        silent = settings.model_copy(update={"kafka": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"})
        facts = KafkaFacts(silent)
        metrics.REACHABLE.labels("kafka").set(1)
        async with asyncio.timeout(5):
            await facts.look()
            await facts.look()
        assert told(metrics.REACHABLE)["kafka"] == 0
        await facts.close()


async def test_a_registry_that_is_there(settings: Settings) -> None:
    migrate(settings)
    facts = RegistryFacts(settings)
    await facts.reach()
    await facts.look()
    facts.close()
    assert told(metrics.REACHABLE)["registry"] == 1
    assert told(metrics.DEVICES_SEEN) == {"reporting": 0, "silent": 0}


async def test_a_look_that_fails_is_told_and_the_others_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    class Log:
        def exception(self, event: str, of: str) -> None:
            lines.append(f"{event} {of}")

    def fail(disk: str, folder: Path) -> None:
        raise OSError("no such disk")

    monkeypatch.setattr(measured, "_log", Log())
    monkeypatch.setattr(measured, "tell_disk", fail)
    metrics.REACHABLE.clear()
    async with measured.measured(settings):
        await asyncio.to_thread(
            wait_until,
            "all were looked at",
            lambda: set(told(metrics.REACHABLE)) == {"kafka", "clickhouse", "registry"},
        )
    assert lines == ["facts.look_failed home"]
