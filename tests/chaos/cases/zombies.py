"""(b) A store worker frozen exactly between dedupe and insert, woken after another has stored what it holds."""

from __future__ import annotations

import time

from midstream import topics
from tests.chaos.case import Run, case
from tests.chaos.judge import Judgement
from tests.chaos.standins import signs
from tests.chaos.world import SESSION_TIMEOUT_S, Shape
from tests.support.waiting import wait_until

_FREEZE_S = 30.0
_TAKE_OVER_S = 120.0
_ROUNDS_AT_MOST = 3
_ROUND_S = 15.0


def _shape(*wrongs: str) -> Shape:
    return Shape(store=2, standins={"store": ",".join(wrongs)})


def _rounds(run: Run) -> None:
    rounds = max(1, min(_ROUNDS_AT_MOST, round(run.plan.fault_s / _ROUND_S)))
    for _ in range(rounds):
        _freeze_and_wake(run, run.rng.choice(run.world.workers("store")))


def _freeze_and_wake(run: Run, worker: str) -> None:
    keeper, folder = run.world.keeper, run.world.run
    note = signs.note_of(folder, worker)
    note.unlink(missing_ok=True)
    signs.trigger_of(folder, worker).touch()
    wait_until(f"{worker} stops itself before an insert", note.exists, _FREEZE_S)
    assert int(note.read_text()) == keeper.pid(worker)
    frozen_at = time.monotonic()
    ends = run.world.kafka.ends(topics.VALID.name)

    def taken_over() -> bool:
        committed = run.world.ask(lambda: run.world.kafka.committed(topics.GROUP_STORE))
        return isinstance(committed, dict) and all(committed.get(tp, 0) >= end for tp, end in ends.items())

    # All that was there when it froze is stored by the other: among it the very block that this one is about to insert.
    wait_until("the other worker has stored what the frozen one holds", taken_over, _TAKE_OVER_S, 0.3)
    run.notes.setdefault("frozen_s", []).append(round(time.monotonic() - frozen_at, 1))
    assert time.monotonic() - frozen_at >= SESSION_TIMEOUT_S - 1, "its partitions cannot have moved yet"
    keeper.thaw(worker)
    run.count("zombies")
    run.sleep(2)


def _bites(run: Run, judgement: Judgement) -> list[str]:
    """Without tokens rows must double: that shows that these cases would find it out."""
    if judgement.double <= 0:
        return ["no row was doubled: this way of testing finds nothing out"]
    if judgement.lost or judgement.invented:
        return judgement.faults
    run.notes["expected"] = judgement.faults
    return []


@case(_shape("freeze"), warm_s=0.0)
def zombie_store_at_first(run: Run) -> None:
    """A store worker frozen at its very first insert: its partitions move before anything of them is committed."""
    _freeze_and_wake(run, run.rng.choice(run.world.workers("store")))
    run.sleep(run.plan.fault_s / 4)


@case(_shape("freeze"))
def zombie_store(run: Run) -> None:
    """A store worker frozen between dedupe and insert, woken after its partitions moved."""
    _rounds(run)


@case(_shape("freeze", "no_lease"))
def zombie_store_without_lease(run: Run) -> None:
    """The same with the lease switched off: tokens alone keep it exact."""
    _rounds(run)


@case(_shape("freeze", "no_lease", "no_tokens"), verdict=_bites, audit_exit=None)
def zombie_store_without_tokens(run: Run) -> None:
    """The same with tokens left out too: rows must double, or these cases prove nothing."""
    _rounds(run)
