"""The real engine process, in a temporary folder on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client

START_TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class EngineProcess:
    """``python -m deploy.local.engine`` over one home."""

    def __init__(self, home: Path, port: int, **settings: str) -> None:
        self.home = home
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = home / "engine.log"
        self.http = httpx.Client(base_url=self.url, timeout=60)  # one for all: making one takes 0.1 s
        home.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")}
        environment |= {"MIDSTREAM_HOME": str(home), "MIDSTREAM_LOCAL_CLICKHOUSE_PORT": str(port), **settings}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local.engine"], env=environment, stdout=log, stderr=log
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait_ready(self) -> EngineProcess:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.text
            try:
                if self.http.get("/ping", timeout=1).text == "Ok.\n":
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"not ready: {self.text}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def client(self, **options: object) -> Client:
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.port, database="midstream", autogenerate_session_id=False, **options
        )

    def query(self, sql: str | bytes, **params: str) -> str:
        """Run over plain HTTP; the answer's text. Fails on an error."""
        answer = self.http.post("/", params=params, content=sql)
        assert answer.status_code == 200, answer.text
        return answer.text


StartEngine = Callable[..., EngineProcess]


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[StartEngine]:
    """Start engines that a test may stop and kill."""
    started: list[EngineProcess] = []

    def start(home: Path | None = None, port: int | None = None, **settings: str) -> EngineProcess:
        process = EngineProcess(home or tmp_path / "home", port or free_port(), **settings)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait(30)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One engine for all tests that leave it running; its tables are named by each test."""
    process = EngineProcess(tmp_path_factory.mktemp("engine"), free_port()).wait_ready()
    yield process
    assert process.stop() == 0, process.text


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[Client]:
    with engine.client() as client:
        yield client


@pytest.fixture
def table(engine: EngineProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table's name for one test; dropped afterwards."""
    name = "t_" + "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[:60]
    yield name
    engine.query(f"DROP TABLE IF EXISTS {name}")
