"""The process itself: it starts without Kafka and ClickHouse, shows its metrics, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.registry.sync.jobs import Jobs, Order
from midstream.settings import Settings
from tests.support.ports import port_settings
from tests.support.waiting import wait_until

MIB = 1024 * 1024
IDLE_RSS_BYTES = 110 * MIB


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("MIDSTREAM_REGISTRY", raising=False)
    found = Settings.model_validate(
        {**port_settings(), "home": tmp_path, "kafka": "", "clickhouse": "", "registry": ""}
    )
    migrate(found)
    return found


@pytest.fixture
def process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    ours = {"MIDSTREAM_HOME": str(settings.home)}
    ours |= {f"MIDSTREAM_{name.upper()}": str(getattr(settings, name)) for name in port_settings()}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")} | ours
    with (settings.home / "log").open("wb") as log:
        started = subprocess.Popen([sys.executable, "-m", "serve.jobs"], env=environ, stderr=log, stdout=log)
    yield started
    started.kill()
    started.wait(10)


def page(settings: Settings) -> str:
    try:
        url = f"http://127.0.0.1:{settings.jobs_metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_it_waits_for_what_is_away_and_ends_in_time(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    wait_until("it has started", lambda: "jobs.started" in (settings.home / "log").read_text())
    assert "midstream_sync_waiting" in page(settings)
    time.sleep(1)
    assert psutil.Process(process.pid).memory_info().rss < IDLE_RSS_BYTES
    engine = open_engine(settings)
    jobs = Jobs(engine)
    job_id = jobs.create(Order("sync", "user", ("u1",)))[0].id

    def status() -> str:
        job = jobs.get(job_id)
        assert job is not None
        return job.status

    wait_until("it is run", lambda: status() == "running")
    process.send_signal(signal.SIGTERM)
    assert process.wait(14) == 0, (settings.home / "log").read_text()
    assert status() == "queued"
    engine.dispose()


def test_a_port_in_use_is_a_wrong_setting(settings: Settings, request: pytest.FixtureRequest) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.jobs_metrics_port))
        taken.listen()
        started = request.getfixturevalue("process")
        assert started.wait(20) == 78
    assert "metrics.port_unusable" in (settings.home / "log").read_text()
