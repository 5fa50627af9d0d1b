"""The port of a worker's metrics: alive while its loop turns, whatever it waits for."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from midstream.metrics import FATAL_ERRORS
from midstream.probes import Heartbeat, serve_probes
from midstream.settings import Settings
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

HOST = "127.0.0.2"
"""Of the loopback, but not the default."""


def ask(port: int, path: str, host: str = HOST, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{host}:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def settings() -> Settings:
    return Settings(metrics_host=HOST, record_timeout_ms=1_000)


@pytest.fixture
def heartbeat(settings: Settings) -> Heartbeat:
    return Heartbeat(settings)


@pytest.fixture
def port(settings: Settings, heartbeat: Heartbeat) -> int:
    [port] = free_ports(1)
    serve_probes(settings, port, heartbeat)
    return port


def test_metrics_and_health_are_at_the_address_that_is_set_and_nowhere_else(port: int) -> None:
    FATAL_ERRORS.labels("probes-test").inc()
    status, page = ask(port, "/metrics")
    assert (status, 'midstream_fatal_errors_total{stage="probes-test"} 1.0' in page) == (200, True)
    assert ask(port, "/health") == (200, '{"status":"alive"}')
    assert ask(port, "/health", method="HEAD") == (200, "")
    assert ask(port, "/elsewhere")[0] == 404
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_port_in_use_is_an_error(settings: Settings, heartbeat: Heartbeat, port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        serve_probes(settings, port, heartbeat)


def test_a_process_whose_loop_stands_still_is_not_alive_and_is_again_when_it_turns(
    port: int, heartbeat: Heartbeat
) -> None:
    assert heartbeat.limit_s == 2.0
    standing, going = threading.Event(), threading.Event()

    async def work() -> None:
        beating = asyncio.create_task(heartbeat.beat())
        await asyncio.sleep(0.1)
        standing.set()
        going.wait(20)  # the loop stands still
        await asyncio.sleep(1.5)
        beating.cancel()

    thread = threading.Thread(target=asyncio.run, args=[work()])
    thread.start()
    try:
        assert standing.wait(5)
        assert ask(port, "/health")[0] == 200, "a moment is nothing"
        _, page = wait_until("it is not alive", lambda: (found := ask(port, "/health"))[0] == 503 and found, 10)
        assert '"status":"stuck"' in page
    finally:
        going.set()
    wait_until("it is alive", lambda: ask(port, "/health")[0] == 200, 5)
    thread.join(10)
    assert heartbeat.silent_s == 0
    assert ask(port, "/health")[0] == 200, "it ends, and is not stuck"


def test_before_the_first_beat_it_is_alive(port: int, heartbeat: Heartbeat) -> None:
    time.sleep(0.1)
    assert heartbeat.silent_s == 0
    assert ask(port, "/health")[0] == 200
