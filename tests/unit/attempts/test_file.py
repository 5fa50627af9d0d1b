"""The file that outlives the process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midstream.settings import Settings
from processors.attempts import Attempts, AttemptsError
from processors.attempts.file import FILE_BYTES
from tests.unit.attempts.records import GROUP, TRIES, Record, lane


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, record_tries=TRIES, worker_id="w")


def test_two_workers_never_share_one(settings: Settings) -> None:
    first, second = Attempts.open(settings, GROUP), Attempts.open(settings, GROUP)
    lane(first).begin(Record(0, 1))
    first.sync()
    assert not lane(second)._attempts.has_entries
    assert sorted(path.name for path in (settings.home / "attempts").iterdir()) == ["g-w", "g-w.1"]


def test_what_is_no_such_file_is_made_anew(settings: Settings) -> None:
    folder = settings.home / "attempts"
    folder.mkdir()
    (folder / "g-w").write_bytes(b"something else")
    assert not Attempts.open(settings, GROUP).has_entries
    assert (folder / "g-w").stat().st_size == FILE_BYTES


def test_a_folder_that_cannot_be_used_is_named(settings: Settings) -> None:
    (settings.home / "attempts").write_text("a file")
    with pytest.raises(AttemptsError, match="attempts"):
        Attempts.open(settings, GROUP)


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()", "os._exit(1)"])
def test_it_outlives_the_process(settings: Settings, end: str) -> None:
    code = (
        "import os, signal, sys\n"
        "from tests.unit.attempts.records import Record, GROUP\n"
        "from midstream.settings import Settings\n"
        "from processors.attempts import Attempts\n"
        f"settings = Settings(home={str(settings.home)!r}, worker_id='w')\n"
        "lane = Attempts.open(settings, GROUP).lane('t')\n"
        "lane.begin(Record(3, 9))\n"
        "lane.at(5)\n"
        f"{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], timeout=60, check=False)
    assert done.returncode in (0, 1, -signal.SIGKILL)
    attempts = Attempts.open(settings, GROUP)
    if end == "sys.exit()":
        assert not attempts.has_entries  # a clean stop leaves no mark
        return
    (suspect,) = attempts._suspects.values()
    assert (suspect.identity.topic, suspect.identity.partition, suspect.identity.offset) == ("t", 3, 9)
    assert (suspect.index, suspect.tries) == (5, 1)
