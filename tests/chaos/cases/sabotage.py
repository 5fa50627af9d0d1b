"""The audit itself, tested by sabotage: a worker that drops events silently must be found out, to the event."""

from __future__ import annotations

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
    if _named(run) != sorted((entry["batch_id"], entry["event_index"], entry["mid"]) for entry in dropped):
        faults.append(f"the audit names others than were dropped: {_named(run)}")
    if judgement.double or judgement.invented or judgement.in_flight:
        faults += judgement.faults
    return faults


def _named(run: Run) -> list[tuple[str, int, str]]:
    """Return the arrivals that the audit says are missing, with their mids."""
    findings = run.notes["audit"]["report"].get("findings", [])
    return sorted(
        (one.get("batch_id", ""), one.get("event_index", -1), one.get("mid", ""))
        for one in findings
        if one["kind"] == "missing"
    )


@case(lambda plan: _shape("validate", plan), verdict=_found_out, audit_exit=1)
def sabotage_validate(run: Run) -> None:
    """validate drops one event in ten thousand and says nothing: found out, each by name."""
    run.sleep(run.plan.fault_s)


@case(lambda plan: _shape("store", plan), verdict=_found_out, audit_exit=1)
def sabotage_store(run: Run) -> None:
    """store leaves one event in ten thousand out of its inserts: found out, each by name."""
    run.sleep(run.plan.fault_s)
