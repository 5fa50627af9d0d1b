"""Real processes, started again whenever they end: a supervisor whose every process is in the harness's hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.pipeline import ROOT
from tests.support.waiting import wait_until

_LOOK_S = 0.05
_STEADY_S = 3.0
"""A process that ends sooner than this is started again a little later each time, as supervisord does."""
_DELAY_S = 0.2
_MAX_DELAY_S = 3.0
_END_S = 10.0


@dataclass
class _Kept:
    module: str
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = False
    started_at: float = 0.0
    not_before: float = 0.0
    delay_s: float = _DELAY_S
    starts: int = 0
    frozen: bool = field(default=False)


class Keeper:
    """Keeps Python modules running, each as the leader of a process group of its own.

    All starts happen in one thread, all methods may be called from another. As a context manager it leaves nothing.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is kept

    def add(self, name: str, module: str, env: Mapping[str, str], log: Path) -> None:
        """Know a process; it is not started yet."""
        with self._lock:
            self._kept[name] = _Kept(module, dict(env), log)

    def start(self, *names: str) -> None:
        """Start what does not run, and keep it running."""
        with self._lock:
            for name in names:
                kept = self._kept[name]
                kept.wanted, kept.not_before, kept.delay_s = True, 0.0, _DELAY_S

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of those that are to run."""
        with self._lock:
            return [name for name, kept in self._kept.items() if kept.wanted and name.startswith(prefix)]

    def pid(self, name: str) -> int:
        """Return its process id; 0 while it does not run."""
        with self._lock:
            return self._pid(self._kept[name])

    def starts(self) -> dict[str, int]:
        """Return how often each has been started."""
        with self._lock:
            return {name: kept.starts for name, kept in self._kept.items() if kept.starts}

    def wait_running(self, *names: str, timeout_s: float = 30.0) -> None:
        """Wait until they have been started (not: until they are ready)."""
        wait_until(f"{', '.join(names)} run", lambda: all(self.pid(name) for name in names), timeout_s)

    # What is done to it

    def kill(self, *names: str) -> list[int]:
        """SIGKILL, all at once, with the processes each has made; they are started again. Return the pids."""
        with self._lock:
            return [pid for name in names if (pid := self._signal(name, signal.SIGKILL))]

    def hold(self, *names: str) -> None:
        """SIGKILL, and do not start again before :meth:`start`."""
        with self._lock:
            for name in names:
                self._kept[name].wanted = False
            self.kill(*names)
        self._wait_ended(names)

    def stop(self, *names: str, timeout_s: float = 20.0) -> None:
        """SIGTERM, and SIGKILL to what has not ended in time; do not start again before :meth:`start`."""
        with self._lock:
            for name in names:
                self._kept[name].wanted = False
                self._signal(name, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and any(self.pid(name) for name in names):
            time.sleep(_LOOK_S)
        self.hold(*names)

    def freeze(self, name: str) -> int:
        """SIGSTOP to it and the processes it has made; return its pid, 0 if it does not run."""
        return self._signal(name, signal.SIGSTOP)

    def thaw(self, *names: str) -> None:
        """SIGCONT; nothing happens to those that are not frozen."""
        for name in names or tuple(self._kept):
            self._signal(name, signal.SIGCONT)

    def close(self) -> None:
        """End everything at once, and wait for it."""
        self._closing.set()
        self._thread.join(_END_S)
        with self._lock:
            for name, kept in self._kept.items():
                kept.wanted = False
                self._signal(name, signal.SIGKILL)
        self._wait_ended(tuple(self._kept))

    # How

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_S):
            with self._lock:
                for kept in self._kept.values():
                    self._look_at(kept)

    def _look_at(self, kept: _Kept) -> None:
        now = time.monotonic()
        process = kept.process
        if process is not None and process.poll() is not None:
            # It may leave processes of its own behind, which hold its ports (the workers of web).
            _kill_group(process.pid)
            kept.process = None
            lived_s = now - kept.started_at
            kept.delay_s = _DELAY_S if lived_s >= _STEADY_S else min(kept.delay_s * 2, _MAX_DELAY_S)
            kept.not_before = now + kept.delay_s
        if kept.wanted and kept.process is None and now >= kept.not_before:
            kept.started_at = now
            kept.starts += 1
            with kept.log.open("ab") as output:
                kept.process = subprocess.Popen(
                    [sys.executable, "-m", kept.module],
                    cwd=ROOT,
                    env=dict(kept.env),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

    def _signal(self, name: str, number: signal.Signals) -> int:
        with self._lock:
            pid = self._pid(self._kept[name])
            if pid:
                with suppress(ProcessLookupError):
                    os.killpg(pid, number)
            return pid

    @staticmethod
    def _pid(kept: _Kept) -> int:
        # poll() before any signal: the pid of one that was waited for may be another's by now.
        return kept.process.pid if kept.process is not None and kept.process.poll() is None else 0

    def _wait_ended(self, names: Iterable[str]) -> None:
        for name in names:
            process = self._kept[name].process
            if process is not None:
                process.wait(_END_S)
                _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    """End what a process that has ended left of its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def repeat_until(deadline: float, work: Callable[[], None]) -> int:
    """Repeat ``work`` until the time of the monotonic clock; return how often it was done."""
    times = 0
    while time.monotonic() < deadline:
        work()
        times += 1
    return times
