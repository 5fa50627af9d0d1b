"""The real supervisord, with stand-ins for the pipeline's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import supervision as module
from deploy.local.errors import LocalError
from deploy.local.home import Home, open_home
from deploy.local.orphans import find_processes, run_environment
from deploy.local.supervision import Program, Supervision, programs_of
from deploy.local.supervisor_client import SupervisorClient, SupervisorGoneError
from deploy.local.watch import Watch
from midstream.settings import Settings
from tests.support.waiting import wait_until

STANDINS = "tests.support.standins"
Supervise = Callable[..., Supervision]


def steady(name: str, priority: int = 10) -> Program:
    return Program(name, f"{STANDINS}.steady", priority, 5)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / 'it\'s 100% odd; #1 "home"')


@pytest.fixture
def supervise(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervise]:
    monkeypatch.setattr(module, "START_SECONDS", 1)
    started: list[Supervision] = []

    def supervise(*programs: Program) -> Supervision:
        started.append(Supervision(home, list(programs), run_environment(os.environ, home)))
        return started[-1]

    yield supervise
    for one in started:
        one.kill()
    assert find_processes(home) == []


def started(home: Home, name: str, times: int = 1) -> bool:
    log = home.logs / f"{name}.log"
    return log.exists() and log.read_text().count("started") == times


def test_a_killed_process_is_started_again(home: Home, supervise: Supervise) -> None:
    supervision = supervise(steady("one"))
    supervision.start("one")
    pid = wait_until("one runs", lambda: (info := supervision.processes()["one"]).state == "RUNNING" and info.pid)
    os.kill(pid, signal.SIGKILL)
    wait_until("one was started again", lambda: started(home, "one", 2))
    assert supervision.processes()["one"].pid not in (0, pid)


def test_starting_what_runs_changes_nothing(home: Home, supervise: Supervise) -> None:
    supervision = supervise(steady("one"))
    supervision.start("one")
    wait_until("one runs", lambda: started(home, "one"))
    supervision.start("one")
    assert started(home, "one")


def test_processes_stop_one_after_the_other_from_the_highest_priority(home: Home, supervise: Supervise) -> None:
    supervision = supervise(steady("last", 10), steady("first", 30), steady("middle", 20))
    for name in ("first", "middle", "last"):
        supervision.start(name)
        wait_until(f"{name} runs", lambda name=name: started(home, name))  # type: ignore[misc]
    supervision.begin_stop()
    wait_until("the supervisor ended", supervision.ended)
    lines = {name: (home.logs / f"{name}.log").read_text().splitlines()[-1] for name in ("first", "middle", "last")}
    times = {name: float(line.removeprefix("stopped ")) for name, line in lines.items()}
    assert times["first"] < times["middle"] < times["last"]


def test_one_that_does_not_stop_is_killed_in_time(home: Home, supervise: Supervise) -> None:
    supervision = supervise(Program("stubborn", f"{STANDINS}.stubborn", 10, 1))
    supervision.start("stubborn")
    wait_until("it runs", lambda: started(home, "stubborn"))
    supervision.begin_stop()
    wait_until("the supervisor ended", supervision.ended, 8)


def test_what_supervisord_gives_up_is_started_again(
    home: Home, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_TRIES", 1)
    supervision = supervise(Program("bad", f"{STANDINS}.crashing", 10, 1))
    said: list[str] = []
    watch = Watch(supervision, said.append, lambda _: None, lambda: time.monotonic() * 20)
    supervision.start("bad")

    def tries() -> int:
        watch.look()
        log = home.logs / "bad.log"
        return log.read_text().count("this one cannot run") if log.exists() else 0

    wait_until("it was tried again after it was given up", lambda: tries() >= 3, 20)
    assert any("ends again and again: next try in" in line for line in said)


def test_a_crashing_process_is_tried_less_and_less_often(home: Home, supervise: Supervise) -> None:
    supervision = supervise(Program("bad", f"{STANDINS}.crashing", 10, 1))
    supervision.start("bad")
    time.sleep(5)
    assert 2 <= (home.logs / "bad.log").read_text().count("this one cannot run") <= 4


def test_supervisord_ends_in_order_when_its_launcher_was_killed(home: Home) -> None:
    script = """if True:
        import os, signal, sys, time
        from pathlib import Path
        from deploy.local.home import Home
        from deploy.local.orphans import run_environment
        from deploy.local.supervision import Program, Supervision
        home = Home(Path(sys.argv[1]))
        supervision = Supervision(
            home, [Program("one", "tests.support.standins.steady", 10, 5)], run_environment(os.environ, home)
        )
        supervision.start("one")
        while not (log := home.logs / "one.log").exists() or "started" not in log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", script, str(home.root)], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until("all are gone", lambda: find_processes(home) == [], 10)
    assert "stopped" in (home.logs / "one.log").read_text()


def test_stale_files_of_a_killed_supervisor_do_not_matter(home: Home, supervise: Supervise) -> None:
    first = supervise(steady("one"))
    first._process.kill()
    wait_until("it is gone", first.ended)
    assert home.socket.exists()
    (home.run / "supervisord.pid").write_text("1\n")
    supervise(steady("one")).processes()


def test_a_supervisor_that_cannot_start_says_why(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "supervisord_config", lambda _: "[supervisord]\nnodaemon = perhaps\n")
    with pytest.raises(LocalError, match=r"does not start:.*perhaps"):
        Supervision(home, [], run_environment(os.environ, home))


def test_what_was_stopped_stays_stopped_until_it_is_started(home: Home, supervise: Supervise) -> None:
    supervision = supervise(steady("one"))
    supervision.start("one")
    wait_until("it runs", lambda: started(home, "one"))
    client = SupervisorClient(home.socket)
    client.stop("one")
    wait_until("it has stopped", lambda: client.processes()["one"].state == "STOPPED", 10)
    client.stop("one")  # nothing happens
    watch = Watch(supervision, lambda _: None, lambda _: None)
    watch.look()
    assert client.processes()["one"].pid == 0
    client.start("one")
    wait_until("it runs again", lambda: client.processes()["one"].pid > 0, 10)
    with pytest.raises(LocalError, match="two cannot be stopped"):
        client.stop("two")


def test_no_supervisor_is_an_error_of_its_own(home: Home) -> None:
    with pytest.raises(SupervisorGoneError):
        SupervisorClient(home.socket).processes()


def test_what_takes_data_in_stops_first_and_what_keeps_it_last() -> None:
    programs = sorted(programs_of(Settings()), key=lambda program: -program.priority)
    assert [program.name for program in programs] == ["web", "jobs", "validate", "devices", "store", "engine", "kafka"]
    apart = Settings.model_validate({"kafka": "k:9092", "clickhouse": "http://c:8123/midstream"})
    assert {program.name for program in programs_of(apart)} == {"web", "jobs", "validate", "store", "devices"}
