"""Watches the supervised processes: names every restart, and starts again what the supervisor gave up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.local.supervisor_client import ProcessInfo

GIVEN_UP_DELAY_S = 10.0
"""Wait before what the supervisor gave up is started again, doubled each time up to the longest."""
GIVEN_UP_DELAY_MAX_S = 60.0
_REPEAT_S = 10.0  # a process that keeps dying is named this often
_TAIL_BYTES = 4096
_TAIL_LINES = 5


class Supervised(Protocol):
    """What the watch needs of the supervisor."""

    def processes(self) -> dict[str, ProcessInfo]:
        """Return the processes by name."""

    def start(self, name: str) -> None:
        """Start a process."""


@dataclass(slots=True)
class _Seen:
    """What was last seen of a process, and what has been said about it."""

    pid: int = 0
    failing: bool = False
    deaths: int = 0
    told_at: float = float("-inf")
    start_again_at: float = float("inf")
    delay_s: float = GIVEN_UP_DELAY_S


class Watch:
    """Compares what the supervisor says with what it said before."""

    def __init__(
        self,
        supervised: Supervised,
        say: Callable[[str], None],
        on_death: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_death`` gets the pid of each process that died, to end what it may have left of its own group."""
        self._supervised = supervised
        self._say = say
        self._on_death = on_death
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def look(self) -> None:
        """Look once, say what happened since the last look, and start again what was given up.

        Raises:
            SupervisorGoneError: the supervisor does not answer.
        """
        for name, info in self._supervised.processes().items():
            self._look_at(info, self._seen.setdefault(name, _Seen()))

    def _look_at(self, info: ProcessInfo, seen: _Seen) -> None:
        died = seen.pid != 0 and info.pid != seen.pid
        failing = info.state in {"BACKOFF", "EXITED", "FATAL", "UNKNOWN"}
        if died:
            self._on_death(seen.pid)
        if died or (failing and not seen.failing):
            seen.deaths += 1
            self._tell_of_death(info, seen)
        elif info.state == "RUNNING" and seen.failing:
            self._say(f"{info.name} runs again (pid {info.pid})")
            seen.told_at = float("-inf")
        if info.state == "FATAL":
            self._start_again(info, seen)
        elif info.state == "RUNNING":
            seen.delay_s = GIVEN_UP_DELAY_S
            seen.start_again_at = float("inf")
        seen.pid = info.pid
        # A process counts as failing until it has run for a while, not in its short lives between.
        seen.failing = failing or ((seen.failing or died) and info.state != "RUNNING")

    def _tell_of_death(self, info: ProcessInfo, seen: _Seen) -> None:
        now = self._clock()
        if now - seen.told_at < _REPEAT_S:
            return
        seen.told_at = now
        times = f" ({seen.deaths} times by now)" if seen.deaths > 1 else ""
        said = "".join(f"\n    {line}" for line in tail(Path(info.log)))
        self._say(f"{info.name} ended and is started again{times}; its log {info.log} ends with:{said}")

    def _start_again(self, info: ProcessInfo, seen: _Seen) -> None:
        now = self._clock()
        if seen.start_again_at == float("inf"):
            seen.start_again_at = now + seen.delay_s
            self._say(f"{info.name} ends again and again: next try in {seen.delay_s:.0f} s; see {info.log}")
        elif now >= seen.start_again_at:
            seen.start_again_at = float("inf")
            seen.delay_s = min(seen.delay_s * 2, GIVEN_UP_DELAY_MAX_S)
            self._supervised.start(info.name)


def tail(path: Path) -> list[str]:
    """Return the last lines of a log file, equal ones in a row once; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line for line, _ in itertools.groupby(text.splitlines()) if line.strip()]
    return lines[-_TAIL_LINES:]
