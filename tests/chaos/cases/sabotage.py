"""The audit itself, tested by sabotage: a worker that drops events silently must be found out, to the event."""

from __future__ import annotations

import json
from typing import Any

from tests.chaos.case import Plan, Run, case
from tests.chaos.judge import Judgement
from tests.chaos.standins import signs
from tests.chaos.world import Shape

_ONE_IN = 10_000
_LEAST_DROPPED = 8
"""A run of few events drops a larger share, so that it drops some."""


def _shape(stage: str, plan: Plan) -> Shape:
    one_in = min(_ONE_IN, plan.events // _LEAST_DROPPED)
    return Shape(standins={stage: "drop"}, standin_env={signs.DROP_ONE_IN: str(one_in)})


def _found_out(run: Run, judgement: Judgement) -> list[str]:
    """What was dropped must be missing, unaccounted for, and named: exactly that."""
    dropped = signs.read_dropped(run.world.run)
    run.notes["dropped"] = dropped
    faults = []
    if not dropped:
        return ["nothing was dropped: the sabotage did not work"]
    if judgement.unaccounted != len(dropped):
        faults.append(f"{len(dropped)} arrivals were dropped, and {judgement.unaccounted} are unaccounted for")
    if judgement.lost != len({entry["mid"] for entry in dropped}):
        faults.append(f"the judge misses {judgement.lost} mids")
    if judgement.double or judgement.invented or judgement.in_flight:
        faults += judgement.faults
    return faults


def named_by(audit: str) -> set[tuple[str, int]]:
    """Return the arrivals that the audit's JSON says are missing."""
    report: dict[str, Any] = json.loads(audit)
    return {(batch["batch_id"], index) for batch in report["batches"] for index in batch["missing"]}


@case(lambda plan: _shape("validate", plan), verdict=_found_out, audit_exit=1)
def sabotage_validate(run: Run) -> None:
    """validate drops one event in ten thousand and says nothing: found out, each by name."""
    run.sleep(run.plan.fault_s)


@case(lambda plan: _shape("store", plan), verdict=_found_out, audit_exit=1)
def sabotage_store(run: Run) -> None:
    """store leaves one event in ten thousand out of its inserts: found out, each by name."""
    run.sleep(run.plan.fault_s)
