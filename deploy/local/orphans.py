"""Processes of an earlier run on the same home that outlived their supervisor.

They are known by a variable in their environment, never by their name, and are ended by their own process id;
psutil compares the time of creation first, so a reused id is not hit.
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import time
from collections.abc import Callable, Mapping

import psutil

from deploy.local.errors import LocalError
from deploy.local.home import Home

RUN_HOME = "MIDSTREAM_RUN_HOME"
"""Environment variable of all processes of a pipeline: the home it runs on."""

SUPERVISOR_STOP_S = 30.0
_TERMINATE_S = 10.0
_KILL_S = 5.0


def find_processes(home: Home, *, group: int | None = None) -> list[psutil.Process]:
    """Return the living processes that were started for this home, of one process group if given."""
    found = []
    for process in psutil.process_iter():
        try:
            if group is not None and os.getpgid(process.pid) != group:
                continue
            if process.environ().get(RUN_HOME) == str(home.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # it has ended, or is another user's
            continue
    return found


def end_orphans(home: Home, say: Callable[[str], None]) -> None:
    """End what is left of an earlier run: its supervisor first, which stops the others in order.

    Raises:
        LocalError: one does not end.
    """
    left = find_processes(home)
    if not left:
        return
    say(f"Ending what an earlier run left: {describe(left)}")
    supervisors = [process for process in left if _is_supervisor(process)]
    end_processes(supervisors, signal.SIGTERM, SUPERVISOR_STOP_S)
    end_processes(find_processes(home), signal.SIGTERM, _TERMINATE_S)
    end_processes(find_processes(home), signal.SIGKILL, _KILL_S)
    left = find_processes(home)
    if left:
        raise LocalError(f"processes of an earlier run do not end: {describe(left)}")


def end_processes(processes: list[psutil.Process], number: int, timeout_s: float) -> None:
    """Send a signal to each and wait until all are gone, or the time is over."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and any(_alive(process) for process in processes):
        time.sleep(0.05)


def describe(processes: list[psutil.Process]) -> str:
    """Return ``pid 12 (java), pid 13 (python)``."""
    return ", ".join(f"pid {process.pid} ({_name(process)})" for process in processes)


def run_environment(environ: Mapping[str, str], home: Home) -> dict[str, str]:
    """Return the environment of a pipeline's processes.

    The workers get a name of this machine and home: a named worker has its partitions back at once after a restart,
    instead of when Kafka has stopped waiting for the one that was killed.
    """
    name = hashlib.sha256(f"{platform.node()}:{home.root}".encode()).hexdigest()[:12]
    given = {variable: value for variable, value in environ.items() if variable != "MIDSTREAM_HOME_FILE"}
    if not environ.get("MIDSTREAM_WORKER_ID_FILE"):
        given.setdefault("MIDSTREAM_WORKER_ID", f"local-{name}")
    return {**given, "MIDSTREAM_HOME": str(home.root), RUN_HOME: str(home.root)}


def _is_supervisor(process: psutil.Process) -> bool:
    try:
        return "deploy.local.supervise" in process.cmdline()
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "ended"


def _alive(process: psutil.Process) -> bool:
    """A zombie has ended: it only waits for its parent, which may be the machine's first process."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
