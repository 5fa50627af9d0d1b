from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.home import Home
from deploy.local.orphans import RUN_HOME, end_orphans, end_processes, find_processes, run_environment
from tests.support.waiting import wait_until

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(home: Path, module: str = "tests.support.standins.steady") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={**os.environ, RUN_HOME: str(home)},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"started")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_only_processes_of_this_home_are_found(tmp_path: Path, start: Start) -> None:
    ours = start(tmp_path)
    start(tmp_path / "another")
    assert [process.pid for process in find_processes(Home(tmp_path))] == [ours.pid]


def test_only_processes_of_the_group_are_found(tmp_path: Path, start: Start) -> None:
    one, two = start(tmp_path), start(tmp_path)
    assert [process.pid for process in find_processes(Home(tmp_path), group=two.pid)] == [two.pid]
    assert one.poll() is None


def test_what_is_left_is_ended_and_named(tmp_path: Path, start: Start) -> None:
    ours, theirs = start(tmp_path), start(tmp_path / "another")
    said: list[str] = []
    end_orphans(Home(tmp_path), said.append)
    assert f"pid {ours.pid} (" in said[0]
    assert ours.wait(1) == 0
    assert theirs.poll() is None


def test_nothing_is_said_when_nothing_is_left(tmp_path: Path) -> None:
    end_orphans(Home(tmp_path), lambda line: pytest.fail(line))


def test_what_does_not_listen_is_killed(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.local.orphans._TERMINATE_S", 0.3)
    stubborn = start(tmp_path, "tests.support.standins.stubborn")
    end_orphans(Home(tmp_path), lambda _: None)
    assert stubborn.wait(1) == -signal.SIGKILL


def test_an_ended_process_is_not_found_and_not_hit(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path)
    [found] = find_processes(Home(tmp_path))
    process.kill()
    wait_until("the process is a zombie", lambda: find_processes(Home(tmp_path)) == [])
    process.wait()
    end_processes([found], signal.SIGKILL, 1)


def test_the_processes_of_a_pipeline_know_its_home_and_settings_from_files(tmp_path: Path) -> None:
    for name, text in {"home": "elsewhere", "worker": "w-1", "port": "8700"}.items():
        (tmp_path / name).write_text(text)
    given = {
        "PATH": os.environ["PATH"],
        "MIDSTREAM_HOME_FILE": str(tmp_path / "home"),
        "MIDSTREAM_WORKER_ID_FILE": str(tmp_path / "worker"),
        "MIDSTREAM_PORT_FILE": str(tmp_path / "port"),
    }
    script = "from midstream.settings import load_settings as l; s = l(); print(s.home, s.worker_id, s.port)"
    environment = run_environment(given, Home(tmp_path / "mine"))
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.split(), done.stderr) == ([str(tmp_path / "mine"), "w-1", "8700"], "")
