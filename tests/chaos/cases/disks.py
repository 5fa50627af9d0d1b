"""(g) The spool's disk full; Kafka's and the engine's disk full."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.case import Run, case
from tests.chaos.world import Shape, can_mount

_MIB = 1024 * 1024
_DISK_BYTES = 1024 * _MIB
_LEFT_BYTES = 8 * _MIB
"""What a disk has left at the beginning; the load fills it in a moment."""


def _needs_mount() -> str:
    return "" if can_mount() else "a small disk needs the right to mount a tmpfs (root)"


def _fill(folder: Path) -> Path:
    """Leave little room on the file system of a folder; return the file that takes it."""
    filler = folder / "filler"
    state = os.statvfs(folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - _LEFT_BYTES, 1))
    return filler


def _fill_for_a_while(run: Run, folder: str) -> None:
    """Twice: full for a third of the time, and room again."""
    path = run.world.root / folder
    for _ in range(2):
        run.sleep(run.plan.fault_s / 8)
        filler = _fill(path)
        run.sleep(run.plan.fault_s / 3)
        state = os.statvfs(path)
        run.notes.setdefault("free bytes when full", []).append(state.f_bavail * state.f_frsize)
        filler.unlink()
    run.world.wait_broker()
    run.world.wait_engine()


@case(Shape(tmpfs={"kafka": _DISK_BYTES}), why_not=_needs_mount)
def kafka_disk_full(run: Run) -> None:
    """Kafka's disk full, twice."""
    _fill_for_a_while(run, "kafka")


@case(Shape(tmpfs={"clickhouse": _DISK_BYTES}), why_not=_needs_mount)
def engine_disk_full(run: Run) -> None:
    """The engine's disk full, twice."""
    _fill_for_a_while(run, "clickhouse")
