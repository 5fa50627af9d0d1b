"""`kill -9` of each process of a pipeline: it is ready again, or the next start is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from deploy.local.orphans import find_processes
from tests.support.events import count_stored, post_event
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline(tmp_path_factory.mktemp("own") / "home") as running:
        yield running


@pytest.mark.parametrize("name", ["web", "validate", "store", "devices", "jobs", "engine", "kafka"])
def test_a_killed_process_is_started_again_and_named(own: Pipeline, name: str) -> None:
    said = len(own.output)
    killed = own.kill(name)
    wait_until(f"{name} runs again", lambda: own.pid_of(name) not in (0, killed))
    own.wait_ready()
    mid = post_event(own)
    wait_until("an event goes all the way", lambda: count_stored(own, mid) == 1, 40)
    wait_until("it was named", lambda: f"{name} ended and is started again" in own.output[said:])
    wait_until("its end was named", lambda: f"{name} runs again" in own.output[said:], 40)


def test_a_killed_launcher_takes_everything_with_it_and_the_next_start_works(own: Pipeline) -> None:
    own.kill_launcher()
    own.wait_gone(40)
    own.start()
    own.wait_ready(5)


def test_a_start_while_the_killed_one_still_stops_waits_for_it(own: Pipeline) -> None:
    own.kill_launcher()
    own.start()
    own.wait_ready(5)


def test_what_launcher_and_supervisor_left_is_ended_by_the_next_start(own: Pipeline) -> None:
    left = {name: own.pid_of(name) for name in ("kafka", "engine", "validate", "store", "devices", "jobs", "web")}
    supervisor = psutil.Process(left["kafka"]).ppid()
    os.kill(own.launcher_pid, signal.SIGSTOP)  # so that it does not see the supervisor's end
    os.kill(supervisor, signal.SIGKILL)
    own.kill_launcher()
    assert set(left.values()) <= {process.pid for process in find_processes(own.home)}
    own.start()
    assert f"pid {left['kafka']} (java)" in own.output
    own.wait_ready(5)
    assert not set(left.values()) & {process.pid for process in find_processes(own.home)}


def test_a_killed_supervisor_ends_the_launcher_with_a_reason(own: Pipeline) -> None:
    supervisor = psutil.Process(own.pid_of("kafka")).ppid()
    os.kill(supervisor, signal.SIGKILL)
    assert own.wait_stopped(20) == 1
    assert "the supervisor does not answer" in own.output
    own.start()
