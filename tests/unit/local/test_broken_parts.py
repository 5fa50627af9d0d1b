from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deploy.local.engine.broken import BrokenParts
from deploy.local.engine.errors import QueryError

CORRUPTED = QueryError(246, "Code: 246. DB::Exception: Empty marks file: 0, must be: 7640 (CORRUPTED_DATA)\n")


class Ends:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_a_broken_part_ends_the_engine_once_in_ten_minutes(tmp_path: Path) -> None:
    ends = Ends()
    first = BrokenParts(tmp_path, ends)
    for _ in range(3):  # several queries meet it
        first.notice(CORRUPTED)
    assert ends.count == 1
    again = BrokenParts(tmp_path, ends)  # its next life
    again.notice(CORRUPTED)
    assert ends.count == 1
    [note] = tmp_path.iterdir()
    os.utime(note, (time.time() - 601,) * 2)
    again.notice(CORRUPTED)
    assert ends.count == 2


def test_a_note_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    ends = Ends()
    BrokenParts(tmp_path / "gone", ends).notice(CORRUPTED)
    assert ends.count == 1


@pytest.mark.parametrize(
    "text",
    [
        "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)\n",
        "Code: 75. DB::ErrnoException: Cannot write: errno: 28, strerror: No space left on device.\n",
    ],
)
def test_once_a_full_disk_has_room_the_engine_ends(tmp_path: Path, text: str) -> None:
    ends, now = Ends(), [100.0]
    broken = BrokenParts(tmp_path, ends, lambda: now[0])
    broken.stored()
    for _ in range(3):  # a small insert finds room between larger ones that do not
        broken.notice(QueryError(1, text))
        now[0] += 9
        broken.stored()
    assert ends.count == 0
    now[0] += 2
    broken.stored()
    broken.stored()
    assert ends.count == 1


def test_other_errors_are_nothing_to_it(tmp_path: Path) -> None:
    ends = Ends()
    broken = BrokenParts(tmp_path, ends)
    for code in (36, 60, 159, 241, 1002):
        broken.notice(QueryError(code, f"Code: {code}. DB::Exception: errno: 284 is no such thing.\n"))
    broken.stored()
    assert ends.count == 0
