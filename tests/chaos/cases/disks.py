"""(g) The spool's disk full; Kafka's and the engine's disk full."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.chaos.case import Plan, Run, case
from tests.chaos.judge import Judgement
from tests.chaos.world import BROKER, WEB, Shape, can_mount
from tests.support.waiting import wait_until

_MIB = 1024 * 1024
_SPOOL_BYTES = 4 * _MIB
_REFUSALS = 20
_FULL_S = 90.0
_DISK_BYTES = 1024 * _MIB
_FILL_TRIES = 20
_LEFT_BYTES = 8 * _MIB
"""What a disk has left at the beginning; the load fills it in a moment."""


def _needs_mount() -> str:
    return "" if can_mount() else "a small disk needs the right to mount a tmpfs (root)"


def _full_spool(plan: Plan) -> Shape:
    """A small disk for the spool where that can be had, else a small bound of the spool itself."""
    if can_mount():
        return Shape(tmpfs={"spool": _SPOOL_BYTES})
    return Shape(settings={"spool_max_bytes": _SPOOL_BYTES})


def _refused_and_exact(run: Run, judgement: Judgement) -> list[str]:
    faults = list(judgement.faults)
    if not run.traffic.statuses[503]:
        faults.append("no request was answered 503: the spool was never full")
    return faults


@case(_full_spool, verdict=_refused_and_exact)
def spool_disk_full(run: Run) -> None:
    """Kafka away until the disk of the spool is full: what does not fit is refused."""
    run.notes["means"] = "a tmpfs of its own" if run.world.shape.tmpfs else "spool_max_bytes"
    run.sleep(2)
    run.world.keeper.hold(BROKER)
    wait_until("the spool is full", lambda: run.traffic.statuses[503] > _REFUSALS, _FULL_S)
    run.notes["spooled bytes"] = run.world.spooled_bytes()
    run.sleep(run.plan.fault_s / 3)
    # A collector that dies with a full disk finds it full again.
    run.world.keeper.kill(WEB)
    run.sleep(run.plan.fault_s / 6)
    run.world.keeper.start(BROKER)
    run.world.wait_broker()


def _fill(folder: Path) -> Path:
    """Leave little room on the file system of a folder; return the file that takes it."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        for _ in range(_FILL_TRIES):
            state = os.statvfs(folder)
            try:
                os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - _LEFT_BYTES, 1))
            except OSError as error:  # the others took some of it meanwhile
                if error.errno != errno.ENOSPC:
                    raise
            else:
                return filler
    raise AssertionError(f"{folder} could not be filled: it is full already")


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
