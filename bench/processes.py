"""What the processes of a running pipeline use, by the operating system's accounting."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import psutil

from deploy.local.home import Home
from deploy.local.orphans import find_processes

KINDS = {
    "collector and api": "deploy.local.web",
    "validate": "processors.validate",
    "store": "processors.store",
    "devices": "processors.devices",
    "jobs": "serve.jobs",
    "engine": "deploy.local.engine",
    "broker": "kafka.Kafka",
}
"""The kinds of process of a pipeline, and what tells them in a command line."""

OURS = ("collector and api", "validate", "store")
"""Those that are Midstream's own."""

_SAMPLE_S = 0.5


def processes_by_kind(home: Home) -> dict[str, list[psutil.Process]]:
    """Return the living processes of the pipeline on a home; children count with their parent."""
    found: dict[str, list[psutil.Process]] = {}
    for process in find_processes(home):
        try:
            line = " ".join(process.cmdline())
            for kind, mark in KINDS.items():
                if mark in line:
                    found.setdefault(kind, []).extend([process, *process.children(recursive=True)])
        except psutil.Error:  # it has just ended
            continue
    return {kind: list({process.pid: process for process in some}.values()) for kind, some in found.items()}


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of one kind have used while they were watched."""

    cpu_s: float
    rss_bytes: list[int]
    """Memory that all of them held together, sampled twice a second; pages that they share count for each."""


class Watch:
    """Watches the processes of a pipeline from entry to exit; those that ended meanwhile are :attr:`ended`."""

    def __init__(self, home: Home) -> None:
        self._processes = processes_by_kind(home)
        self._began = _cpu_s(self._processes)
        self._used = self._began
        self._rss_bytes: dict[str, list[int]] = {kind: [] for kind in self._processes}
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)
        self.ended: list[str] = []

    def __enter__(self) -> Watch:
        self._began = _cpu_s(self._processes)
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._used = _cpu_s(self._processes)
        self._over.set()
        self._sampler.join()
        self.ended = [kind for kind, some in self._processes.items() if not all(map(_lives, some))]

    @property
    def usage(self) -> dict[str, Usage]:
        """What each kind used, once the watch is over."""
        return {kind: Usage(self._used[kind] - self._began[kind], self._rss_bytes[kind]) for kind in self._processes}

    def _sample(self) -> None:
        while True:
            for kind, processes in self._processes.items():
                self._rss_bytes[kind].append(sum(map(_rss_bytes, processes)))
            if self._over.wait(_SAMPLE_S):
                return


def _lives(process: psutil.Process) -> bool:
    return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _cpu_s(by_kind: Mapping[str, list[psutil.Process]]) -> dict[str, float]:
    found = {}
    for kind, processes in by_kind.items():
        found[kind] = 0.0
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            found[kind] += times.user + times.system
    return found
