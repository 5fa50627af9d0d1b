"""The keeper starts again what ends, does what it is told, and leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos.keeper import Keeper
from tests.support.waiting import wait_until


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """Keeps two servers, as long as the test runs."""
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    # It leaves a child behind when it is killed.
    (tmp_path / "parent.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with Keeper() as kept:
        for name in ("sleeper", "parent"):
            kept.add(name, name, env, tmp_path / f"{name}.log")
        yield kept


def pid_of(keeper: Keeper, name: str, *, other_than: int = 0) -> int:
    return wait_until(f"{name} runs", lambda: pid if (pid := keeper.pid(name)) != other_than else 0, 10)


def test_it_starts_again_what_was_killed(keeper: Keeper) -> None:
    assert keeper.pid("sleeper") == 0
    keeper.start("sleeper")
    first = pid_of(keeper, "sleeper")
    assert keeper.kill("sleeper") == [first]
    second = pid_of(keeper, "sleeper", other_than=first)
    os.kill(second, signal.SIGTERM)
    pid_of(keeper, "sleeper", other_than=second)
    assert keeper.starts() == {"sleeper": 3}


def test_what_is_held_stays_away(keeper: Keeper) -> None:
    keeper.start("sleeper")
    first = pid_of(keeper, "sleeper")
    keeper.hold("sleeper")
    assert not psutil.pid_exists(first)
    assert (keeper.pid("sleeper"), keeper.names()) == (0, [])
    keeper.start("sleeper")
    pid_of(keeper, "sleeper")


def test_a_frozen_process_can_be_thawed_and_ended(keeper: Keeper) -> None:
    keeper.start("sleeper")
    pid = pid_of(keeper, "sleeper")
    assert keeper.freeze("sleeper") == pid
    wait_until("it stands still", lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 5)
    keeper.thaw("sleeper")
    wait_until("it runs", lambda: psutil.Process(pid).status() != psutil.STATUS_STOPPED, 5)
    keeper.freeze("sleeper")
    keeper.stop("sleeper", timeout_s=0.2)
    assert not psutil.pid_exists(pid)


def test_what_a_killed_process_made_goes_with_it(keeper: Keeper) -> None:
    keeper.start("parent")
    pid = pid_of(keeper, "parent")
    [child] = wait_until("it has a child", lambda: psutil.Process(pid).children(), 10)
    os.kill(pid, signal.SIGKILL)  # the leader alone
    wait_until("the child is gone", lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5)


def test_it_leaves_nothing(keeper: Keeper) -> None:
    keeper.start("sleeper", "parent")
    pids = [pid_of(keeper, name) for name in ("sleeper", "parent")]
    children = wait_until("it has a child", lambda: psutil.Process(pids[1]).children(), 10)
    keeper.freeze("sleeper")
    keeper.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    wait_until("the child is gone", lambda: not any(child.is_running() for child in children), 5)
