"""What an earlier bench left is ended and removed, and two benches do not share a folder."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.pipeline import BenchError, bench_folder, free_ports
from bench.processes import Watch
from deploy.local.home import Home, HomeLock, open_home
from deploy.local.orphans import RUN_HOME

SLEEPER = "import sys, time; print('up', flush=True); time.sleep(60)"
LAUNCHER = """
import fcntl, os, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(str(os.getpid()))
lock.flush()
print("up", flush=True)
time.sleep(60)
"""


def start(code: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **env}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_a_folder_is_held_by_one_bench_at_a_time(tmp_path: Path) -> None:
    with bench_folder(tmp_path / "b"), pytest.raises(BenchError, match="runs in"), bench_folder(tmp_path / "b"):
        pass
    with bench_folder(tmp_path / "b"):
        pass


def test_what_a_killed_bench_left_is_ended_and_removed(tmp_path: Path) -> None:
    root = tmp_path / "home"
    (root / "run").mkdir(parents=True)
    home = Home(Path(os.path.realpath(root)))
    launcher = start(LAUNCHER, str(home.lock))
    worker = start(SLEEPER, **{RUN_HOME: str(home.root)})
    try:
        with bench_folder(tmp_path):
            assert not root.exists()
            assert launcher.wait(10) != 0
            assert worker.wait(10) != 0
    finally:
        launcher.kill()
        worker.kill()


def test_a_lock_that_nobody_holds_ends_nobody(tmp_path: Path) -> None:
    (tmp_path / "home" / "run").mkdir(parents=True)
    lock = tmp_path / "home" / "run" / "launcher.lock"
    lock.write_text(str(os.getpid()))  # ours: were it believed, this test would be interrupted
    with bench_folder(tmp_path):
        assert not lock.exists()


def test_ports_are_different_and_below_those_of_clients() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(20_000 <= port < 32_000 for port in ports)


def test_the_watch_counts_cpu_and_memory_of_a_kind_and_tells_who_ended(tmp_path: Path) -> None:
    burning = (
        "import time\nprint('up', flush=True)\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
    )
    home = Home(Path(os.path.realpath(tmp_path)))
    env = {RUN_HOME: str(home.root)}
    steady = start(burning + "time.sleep(60)  # processors.store", **env)
    ending = start(burning + "# processors.validate", **env)
    try:
        with Watch(home) as watch:
            began = time.monotonic()
            while time.monotonic() - began < 20 and ending.poll() is None:
                time.sleep(0.05)
            time.sleep(1)
        assert 0.2 <= watch.usage["store"].cpu_s <= 1.0
        assert max(watch.usage["store"].rss_bytes) > 1e6
        assert watch.ended == ["validate"]
    finally:
        for process in (steady, ending):
            process.kill()
            process.wait()


def test_the_lock_of_a_home_is_the_one_that_is_looked_at(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    held = HomeLock(home)
    with home.lock.open("r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert int(home.lock.read_text()) == os.getpid()
    held.release()
