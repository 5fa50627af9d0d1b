"""What a backup or a restore starts is stopped however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local.orphans import RUN_HOME
from tests.support.waiting import wait_until

_ALONE = """
import signal, sys, time
from pathlib import Path
# Who runs the tests in the background may have had these ignored, which is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from deploy.local import alone
from midstream.settings import Settings
alone._MODULES = {"engine": "tests.support.standins.steady"}
alone._wait_up = lambda *_: None
started = []
start = alone._start
alone._start = lambda *of: started.append(start(*of)) or started[-1]
with alone.stores_alone(Settings(home=Path(sys.argv[1]), kafka="elsewhere:1"), lambda _: None, beside=False):
    print(started[0].pid, flush=True)
    time.sleep(60)
"""


def alone(home: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MIDSTREAM_")}
    return subprocess.Popen(
        [sys.executable, "-c", _ALONE, str(home)], env=environment, stdout=subprocess.PIPE, text=True
    )


def pid_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_when_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    with alone(tmp_path) as process:
        started = psutil.Process(pid_of(process))
        process.send_signal(number)
        assert process.wait(20) != 0
    try:
        assert not started.is_running()
    finally:
        if started.is_running():
            started.kill()


def test_what_one_that_was_killed_left_is_ended_by_the_next(tmp_path: Path) -> None:
    with alone(tmp_path) as killed:
        left = psutil.Process(pid_of(killed))
        wait_until("its environment is its own", lambda: RUN_HOME in left.environ(), 5)
        killed.kill()
    try:
        with alone(tmp_path) as again:
            assert pid_of(again) != left.pid
            assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
            again.terminate()
    finally:
        if left.is_running():
            left.kill()
