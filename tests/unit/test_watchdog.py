"""A worker that stands still in a step ends itself, and the record it worked on has a try against it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from midstream.settings import Settings
from processors.attempts import Attempts

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1.0
GROUP = "g"

WORKER = """
import asyncio, re, sys, threading, time
from midstream.settings import Settings
from processors.attempts import Attempts, end_if_stuck
from tests.unit.attempts.records import Record

settings = Settings(home=sys.argv[1], worker_id="w")
attempts = Attempts.open(settings, {group!r})
lane = attempts.lane("t")

def hold_the_lock():
    re.match("(a*)*b", "a" * 40)  # years, and one call in C

async def work():
    {work}

async def main():
    watching = asyncio.create_task(end_if_stuck(attempts, {timeout_s}))
    await asyncio.sleep(0.05)
    await work()
    watching.cancel()
    print("worked")

asyncio.run(main())
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, worker_id="w")


def run(settings: Settings, work: str) -> subprocess.CompletedProcess[str]:
    code = WORKER.format(group=GROUP, timeout_s=TIMEOUT_S, work=work)
    return subprocess.run(
        [sys.executable, "-c", code, str(settings.home)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "work",
    [
        "lane.begin(Record(3, 9)); lane.at(5); hold_the_lock()",
        "lane.begin(Record(3, 9)); lane.at(5); await asyncio.to_thread(hold_the_lock)",
        "lane.begin(Record(3, 9)); lane.at(5); await asyncio.to_thread(threading.Event().wait)",
    ],
    ids=["in the loop", "in a thread that holds the lock", "in a thread that does not"],
)
def test_a_step_that_does_not_end_is_a_try_of_its_record(settings: Settings, work: str) -> None:
    done = run(settings, work)
    assert done.returncode in (1, 70)
    assert "worked" not in done.stdout
    assert "most recent call first" in done.stderr  # where it stood
    (suspect,) = Attempts.open(settings, GROUP)._suspects.values()
    assert (suspect.identity.partition, suspect.identity.offset, suspect.index, suspect.tries) == (3, 9, 5, 1)


@pytest.mark.parametrize(
    "work",
    [
        "await asyncio.sleep(2.5)",
        "lane.begin(Record(3, 9))\n    with lane.waiting(): await asyncio.sleep(2.5)\n    lane.passed()",
        "for n in range(25): lane.begin(Record(3, n)); await asyncio.sleep(0.1); lane.passed()",
        "lane.begin(Record(3, 9))\n    for n in range(25): lane.at(n); await asyncio.sleep(0.1)\n    lane.passed()",
    ],
    ids=["nothing to do", "waiting", "record after record", "event after event"],
)
def test_who_gets_on_or_waits_for_others_is_left_alone(settings: Settings, work: str) -> None:
    done = run(settings, work)
    assert (done.returncode, done.stdout) == (0, "worked\n"), done.stderr
    assert not Attempts.open(settings, GROUP).has_entries
