"""A process run as a container runs it, as far as one machine goes: an environment of its own and nothing else of ours,
a file system that it may only read but for its home, its home as working folder.

What is not like a container: it sees the machine's processes and network, and runs as the user of the tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_READ_ONLY = """
home=$1; shift
mount --bind "$home" "$home" || exit 96
# What the kernel gives every container stays as it is: /proc, /sys, /dev.
awk '{ print $2 }' /proc/self/mounts | sort -u | while read -r point; do
  case $point in "$home"|/proc|/proc/*|/sys|/sys/*|/dev|/dev/*) ;; *) mount -o remount,bind,ro "$point" ;; esac
done 2>/dev/null
for folder in / /tmp /var/tmp "$ROOT"; do
  if touch "$folder/.writable" 2>/dev/null; then echo "$folder can be written to" >&2; exit 97; fi
done
cd "$home"
exec "$@"
"""


def _isolated(home: Path, command: list[str]) -> list[str]:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *user, "sh", "-c", _READ_ONLY, "sh", str(home), *command]


@cache
def why_no_container() -> str:
    """Return why processes cannot be run so here, "" if they can."""
    try:
        done = subprocess.run(
            _isolated(Path("/mnt"), ["true"]), env=_environment({}), capture_output=True, text=True, timeout=20
        )
    except OSError as error:
        return f"processes cannot be given a read-only file system: {error}"
    if done.returncode == 0:
        return ""
    return f"processes cannot be given a read-only file system: {done.stderr.strip() or done.returncode}"


def _environment(settings: dict[str, str]) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "ROOT": str(ROOT), **settings}


class Contained:
    """A running process. ``settings`` are the environment."""

    def __init__(self, home: Path, command: list[str], settings: dict[str, str], log: Path) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                _isolated(home, command),
                env=_environment({**settings, "MIDSTREAM_HOME": str(home)}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; return its exit code.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        return self._process.wait(timeout_s)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, timeout_s: float) -> int:
        """Tell it to end, as a container's runtime does; return its exit code."""
        self._process.terminate()
        return self.wait(timeout_s)

    def kill(self) -> None:
        """End it and whatever it made."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait(10)
