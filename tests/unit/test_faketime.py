"""A clock that tests set, in a process of Python: what it shows, and what stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.faketime import Clock, why_no_faketime

pytestmark = pytest.mark.skipif(bool(why_no_faketime()), reason=why_no_faketime())

SHOW = """
import sys, threading, time
print(time.time(), flush=True)
for line in sys.stdin:
    began = time.monotonic()
    time.sleep(0.2)
    threading.Event().wait(0.1)
    print(time.time(), time.monotonic() - began, flush=True)
"""
NEAR_S = 5.0


def test_a_process_shows_what_is_set_and_waits_as_long_as_ever(tmp_path: Path) -> None:
    start = datetime(2024, 2, 28, 23, 59, tzinfo=UTC)
    clock = Clock(tmp_path / "clock", start)
    command = [sys.executable, "-c", SHOW]
    env = {**os.environ, **clock.env}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = float(process.stdout.readline())
        assert abs(shown - start.timestamp()) < NEAR_S
        for moment in (start + timedelta(hours=12), start + timedelta(days=1), datetime.now(UTC)):
            clock.set(moment)
            process.stdin.write("\n")
            process.stdin.flush()
            shown, took_s = map(float, process.stdout.readline().split())
            assert abs(shown - moment.timestamp()) < NEAR_S
            assert abs(clock.now().timestamp() - shown) < NEAR_S
            assert 0.3 <= took_s < NEAR_S


RUN = """
import json, subprocess, sys
for command in json.loads(sys.argv[1]):
    print(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()[0])
"""


def test_java_and_the_engine_keep_the_real_clock(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock", datetime(2024, 2, 28, tzinfo=UTC))
    java = str(Path(clock.env["JAVA_HOME"]) / "bin" / "java")
    show = [sys.executable, "-c", "import time; print(time.time())"]
    commands = [
        [java, "-Xlog:gc*:stdout:utctime", "-version"],  # the lines of this log begin with the time
        [*show, "deploy.local.engine"],  # by this word in its arguments it is known
        [*show, "deploy.local.web"],
    ]
    # As in a pipeline, by a process that looks at the clock itself.
    command = [sys.executable, "-c", RUN, json.dumps(commands)]
    before = datetime.now(UTC)
    done = subprocess.run(command, env={**os.environ, **clock.env}, stdout=subprocess.PIPE, text=True, timeout=100)
    of_java, of_engine, of_web = done.stdout.splitlines()
    assert of_java[1:11] in (str(before.date()), str(datetime.now(UTC).date()))
    assert before.timestamp() <= float(of_engine) <= datetime.now(UTC).timestamp()
    assert abs(float(of_web) - clock.now().timestamp()) < NEAR_S
