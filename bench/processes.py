"""What the processes of a running pipeline have used, by the operating system's accounting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil

_MARKS = {
    "collector and api": "deploy.local.web",
    "validate": "processors.validate",
    "store": "processors.store",
    "engine": "deploy.local.engine",
    "broker": "kafka.Kafka",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since its start, and memory now, of all processes of one kind."""

    cpu_s: float
    rss_bytes: int


def usage(home: str) -> dict[str, Usage]:
    """Return the usage of each kind of process that runs on a home; children count with their parent."""
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("MIDSTREAM_RUN_HOME") != home:
                continue
            line = " ".join(process.cmdline())
            for kind, mark in _MARKS.items():
                if mark in line:
                    found.setdefault(kind, []).extend([process, *process.children(recursive=True)])
        except psutil.Error:
            continue
    return {kind: _sum({process.pid: process for process in processes}.values()) for kind, processes in found.items()}


def _sum(processes: Iterable[psutil.Process]) -> Usage:
    cpu_s, rss_bytes = 0.0, 0
    for process in processes:
        try:
            with process.oneshot():
                times = process.cpu_times()
                cpu_s += times.user + times.system
                rss_bytes += process.memory_info().rss
        except psutil.Error:
            continue
    return Usage(cpu_s, rss_bytes)
