"""What ``/metrics`` answers with: the metrics of this process, or of all that serve one address together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render_metrics() -> bytes:
    """Return the metrics in Prometheus's text format. It reads files where several processes serve one address."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return generate_latest(REGISTRY)
    forget_dead_processes(Path(folder))
    registry = CollectorRegistry()
    registry.register(_Added(folder))
    return generate_latest(registry)


class _Added:
    """The metrics of all processes, added up; :meth:`collect` is what prometheus_client asks of a collector."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def collect(self) -> Iterable[Metric]:
        # A gauge that these processes set says how it is added up. The others are those of the workers, which are
        # declared here too and never set: they would show as a row of zeros for each process.
        files = [str(path) for path in self._folder.glob("*.db") if not path.name.startswith("gauge_all_")]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def forget_dead_processes(folder: Path) -> None:
    """Remove the live gauges of processes that are gone: a killed one cannot do it itself."""
    pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")}
    for pid in pids:
        if not _is_alive(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # untyped there


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
