"""A clock for a pipeline's processes that tests set: Debian's libfaketime, loaded before libc.

Python's processes (launcher, supervisor, workers, web, commands) take it for the time of day. The JVM and the
ClickHouse engine keep the real clock, and monotonic clocks, timeouts and files' times stay what they are.
"""

from __future__ import annotations

import os
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.local.prerequisites import find_java

_ROOT = Path(__file__).resolve().parents[2]
_STANDIN = Path(__file__).parent / "standins" / "faketime"
_LIBRARY = "libfaketimeMT.so.1"  # the one for processes with threads


def why_no_faketime() -> str:
    """Return why no clock can be set here, "" when one can."""
    if sys.platform != "linux":
        return "clocks are set with libfaketime on Linux alone"
    if _library() is None:
        return f"libfaketime is not installed (Debian: faketime): no {_LIBRARY} below /usr/lib"
    return ""


def _library() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob(f"*/faketime/{_LIBRARY}"))), None)


class Clock:
    """A clock that goes as fast as the real one, by an offset that can be changed while processes look at it."""

    def __init__(self, folder: Path, at: datetime) -> None:
        """Make a clock that shows ``at`` now. ``folder`` is made, and is the clock's own.

        Raises:
            AssertionError: there is no libfaketime; :func:`why_no_faketime` says so beforehand.
        """
        library = _library()
        assert library is not None, why_no_faketime()
        folder.mkdir(parents=True)
        self._offset = timedelta()
        self._file = folder / "offset"
        self.env: dict[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # what is set counts at once, in all processes
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "JAVA_HOME": str(_make_java_home(folder / "java")),
            "PYTHONPATH": os.pathsep.join([str(_STANDIN), str(_ROOT)]),
        }
        """Environment of the processes that look at it."""
        self.set(at)

    def now(self) -> datetime:
        """Return what the clock shows."""
        return datetime.now(UTC) + self._offset

    def set(self, at: datetime) -> None:
        """Let the clock show ``at`` now, and go on from there. Collectors wait for one that is set back."""
        self._offset = at - datetime.now(UTC)
        # Beside and renamed: with half a file in its hands, libfaketime shows the real time.
        new = self._file.with_name("offset.new")
        new.write_text(f"{self._offset.total_seconds():+.6f}\n")
        new.replace(self._file)

    @staticmethod
    def tidy(pid: int) -> None:
        """Remove what libfaketime leaves in the shared memory of a first process that was killed; all are gone."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)


def _make_java_home(folder: Path) -> Path:
    """Make a ``JAVA_HOME`` whose ``java`` is the real one, with the real clock: a JVM hangs under libfaketime."""
    java = find_java(os.environ)
    assert java is not None, "there is no java"
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {shlex.quote(java)} "$@"\n')
    program.chmod(0o755)
    return folder
