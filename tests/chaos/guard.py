"""Cleans up when the harness is killed: ``python -m tests.chaos.guard HOME``.

It waits until its standard input closes, which the kernel does with the harness, however that ends. What then still
runs on the home is ended, what is mounted below it unmounted, and the home removed (unless a file KEEP is in it).
A home that the harness has removed itself leaves nothing to do.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from deploy.local.home import Home
from deploy.local.orphans import end_processes, find_processes

KEEP = "KEEP"
"""A file of this name in a home keeps the home."""

_END_S = 10.0


def clear(home: Path) -> None:
    """End the processes of a home, unmount what is below it, remove it."""
    end_processes(find_processes(Home(home)), signal.SIGKILL, _END_S)
    for mount in mounts_below(home):
        subprocess.run(["umount", "-l", str(mount)], check=False, timeout=_END_S, capture_output=True)
    if not (home / KEEP).exists():
        shutil.rmtree(home, ignore_errors=True)


def mounts_below(home: Path) -> list[Path]:
    """Return the mount points below a folder, the deepest first."""
    table = Path("/proc/mounts")
    if not table.exists():
        return []
    points = [Path(line.split(" ")[1]) for line in table.read_text().splitlines()]
    return sorted((point for point in points if home in point.parents), reverse=True)


def main() -> None:
    """Wait for the end of the harness, then clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.read()
    clear(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
