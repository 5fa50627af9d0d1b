from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.local.errors import LocalError, StopRequestedError
from deploy.local.waiting import Flag, Waiter, http_get
from tests.support.ports import free_ports


@pytest.fixture
def stop() -> Flag:
    return Flag()


@pytest.fixture
def waiter(stop: Flag) -> Waiter:
    return Waiter(stop)


def set_later(stop: Flag, after_s: float = 0.2) -> None:
    threading.Timer(after_s, stop.set).start()


def test_a_signals_handler_may_set_a_flag_that_is_waited_for() -> None:
    flag = Flag()
    before = signal.signal(signal.SIGUSR1, lambda *_: flag.set())
    try:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        began = time.monotonic()
        assert flag.wait(10)
        assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_waiting_ends_when_it_is_done_or_the_time_is_over(waiter: Waiter) -> None:
    answers = iter([False, False, True])
    assert waiter.until(lambda: next(answers), 10)
    assert not waiter.until(lambda: False, 0.2)


def test_a_stop_ends_every_way_of_waiting(stop: Flag, waiter: Waiter) -> None:
    set_later(stop)
    began = time.monotonic()
    with pytest.raises(StopRequestedError):
        waiter.until(lambda: False, 30)
    with pytest.raises(StopRequestedError):
        waiter.run_async(asyncio.sleep(30))
    with pytest.raises(StopRequestedError):
        waiter.run_command([sys.executable, "-c", "import time; time.sleep(30)"], 30)
    assert time.monotonic() - began < 10


def test_a_command_that_fails_is_quoted(waiter: Waiter) -> None:
    with pytest.raises(LocalError, match=r"(?s)exit status 3.*no such mirror"):
        waiter.run_command([sys.executable, "-c", "import sys; print('no such mirror'); sys.exit(3)"], 20)


def test_a_command_that_is_not_there_is_named(waiter: Waiter) -> None:
    with pytest.raises(LocalError, match="nothing-here cannot be run: No such file"):
        waiter.run_command(["nothing-here"], 20)


def test_a_command_that_takes_too_long_is_ended(waiter: Waiter) -> None:
    with pytest.raises(LocalError, match="longer than 0 s"):
        waiter.run_command([sys.executable, "-c", "import time; time.sleep(30)"], 0.2)


def test_a_command_runs_in_its_folder(waiter: Waiter, tmp_path: Path) -> None:
    waiter.run_command([sys.executable, "-c", "open('here', 'w').close()"], 20, tmp_path)
    assert (tmp_path / "here").exists()


def test_an_asynchronous_failure_comes_out(waiter: Waiter) -> None:
    async def fail() -> None:
        raise LocalError("as it is")

    with pytest.raises(LocalError, match="as it is"):
        waiter.run_async(fail())


def test_no_answer_is_status_0() -> None:
    [port] = free_ports(1)
    assert http_get("127.0.0.1", port, "/") == (0, "")
