"""A simulated fleet reports while the worker of its reports is killed: every state is what was reported."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.pipeline import Pipeline

DEVICES = 60
SECONDS = 12
KILLS = 3
LIMIT_S = 120


def test_every_state_is_what_was_reported(quiet: Pipeline, tmp_path: Path) -> None:
    killed: list[int] = []
    done = threading.Event()
    choice = random.Random(5)

    def kill() -> None:
        while not done.wait(choice.uniform(1.0, 3.0)) and len(killed) < KILLS:
            if (pid := quiet.pid_of("devices")) and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    command = [sys.executable, "-m", "midstream.cli", "simulate", "fleet", "--url", quiet.base_url, "--check", "--json",
               "--devices", str(DEVICES), "--rate", str(DEVICES), "--seconds", str(SECONDS), "--seed", "91",
               "--keys", str(tmp_path / "keys.json")]  # fmt: skip
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        ran = subprocess.run(
            command, env={**os.environ, **quiet.env}, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    finally:
        done.set()
        killer.join()
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    said = json.loads(ran.stdout)
    assert len(killed) == KILLS
    assert said["acknowledged"] > DEVICES * SECONDS * 0.8
    assert said["resent"] > 0
    assert (said["right_states"], said["wrong_states"], said["refused"]) == (DEVICES, [], [])
    quiet.wait_ready()
    # The same devices again: the next run takes up where the first ended.
    second = subprocess.run(
        [*command, "--seconds", "3"], env={**os.environ, **quiet.env}, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert second.returncode == 0, f"{second.stdout}\n{second.stderr}"
    said = json.loads(second.stdout)
    assert (said["registered"], said["right_states"], said["wrong_states"]) == (0, DEVICES, [])
