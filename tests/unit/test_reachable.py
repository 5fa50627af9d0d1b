"""A worker's start waits for what is away, and goes on when it is there."""

from __future__ import annotations

import socket
import threading

import pytest

from midstream.kafka.connection import server_addresses
from midstream.settings import Settings, SettingsError
from processors import reachable
from processors.reachable import clickhouse_addresses, wait_until_reachable
from tests.support.ports import free_ports


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What is told of waiting."""
    told: list[dict[str, object]] = []

    class Log:
        def warning(self, event: str, **facts: object) -> None:
            told.append({"event": event, **facts})

    monkeypatch.setattr(reachable, "log", Log())
    monkeypatch.setattr(reachable, "_INTERVAL_S", 0.05)
    return told


def test_addresses_are_those_of_the_settings() -> None:
    settings = Settings(kafka="a:9093, [::1]:9094,b", clickhouse="https://u:p@store.example:8443/midstream")
    assert server_addresses(settings) == [("a", 9093), ("::1", 9094), ("b", 9092)]
    assert clickhouse_addresses(settings) == [("store.example", 8443)]
    assert server_addresses(Settings(kafka="", local_kafka_port=19092)) == [("127.0.0.1", 19092)]
    with pytest.raises(SettingsError):
        clickhouse_addresses(Settings(clickhouse="nonsense"))


def test_one_server_of_each_is_enough(waits: list[dict[str, object]]) -> None:
    [closed] = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = ("127.0.0.1", listening.getsockname()[1])
        wait_until_reachable({"kafka": [("127.0.0.1", closed), there], "clickhouse": [there]})
    assert waits == []


def test_it_waits_as_long_as_none_is_there_and_tells_so_once(waits: list[dict[str, object]]) -> None:
    [port] = free_ports(1)
    waiting = threading.Thread(target=wait_until_reachable, args=[{"kafka": [("127.0.0.1", port)]}], daemon=True)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert waits == [{"event": "worker.waits", "store": "kafka", "servers": [f"127.0.0.1:{port}"]}]
    with socket.create_server(("127.0.0.1", port)):
        waiting.join(5)
    assert not waiting.is_alive()
    assert len(waits) == 1
