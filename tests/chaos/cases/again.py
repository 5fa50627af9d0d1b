"""(h) Batches resent after everything; (j) offsets lost; a topic made anew; blocks produced and not committed."""

from __future__ import annotations

import time

from midstream import topics
from tests.chaos.case import Run, case
from tests.chaos.standins import signs
from tests.chaos.world import ENGINE, WEB, Shape
from tests.support.waiting import wait_until

_DRAIN_S = 120.0


def _wait_drained(run: Run, *groups: str) -> None:
    """Wait until these groups have committed everything."""

    def drained() -> bool:
        lag = run.world.ask(run.world.kafka.lag)
        return isinstance(lag, dict) and not any(lag[group] for group in groups)

    wait_until(f"{', '.join(groups)} have read everything", drained, _DRAIN_S, 0.3)


@case(Shape(store=2))
def resend_20_percent(run: Run) -> None:
    """A random 20% of the batches sent once more "hours later": after restarts, with new batch ids."""
    keeper = run.world.keeper
    run.sleep(run.plan.fault_s * 0.6)
    run.traffic.pause()
    _wait_drained(run, topics.GROUP_VALIDATE, topics.GROUP_STORE)
    # Whatever was remembered in memory is gone; the caches are loaded anew from what is stored.
    keeper.stop(*run.world.workers("store"), *run.world.workers("validate"), WEB)
    keeper.kill(ENGINE)
    run.world.wait_engine()
    keeper.start(*run.world.workers("store"), *run.world.workers("validate"), WEB)
    run.world.wait_ready()
    run.notes["batches resent"] = run.traffic.resend(0.2)
    run.traffic.resume()


@case(Shape(store=2, validate=2))
def offsets_lost(run: Run) -> None:
    """Offsets of store, validate and the receipts' consumer deleted or set back while they are stopped."""
    keeper, kafka = run.world.keeper, run.world.kafka
    validate, store = run.world.workers("validate"), run.world.workers("store")
    pause_s = run.plan.fault_s / 6
    run.sleep(pause_s)
    keeper.stop(*store)
    kafka.delete_group(topics.GROUP_STORE)
    keeper.start(*store)
    run.sleep(pause_s)
    keeper.stop(*validate)
    kafka.set_back(topics.GROUP_VALIDATE)
    keeper.start(*validate)
    run.sleep(pause_s)
    keeper.stop(*store)
    kafka.delete_group(topics.GROUP_RECEIPTS)
    kafka.set_back(topics.GROUP_STORE)
    keeper.start(*store)
    run.sleep(pause_s)


def _make_anew(run: Run, topic: str) -> None:
    """Make a drained topic anew while nobody reads or writes it; the processes begin anew with it."""
    keeper = run.world.keeper
    run.sleep(run.plan.fault_s / 4)
    run.traffic.pause()
    _wait_drained(run, topics.GROUP_VALIDATE, topics.GROUP_STORE, topics.GROUP_RECEIPTS)
    keeper.stop(WEB, *run.world.workers("validate"), *run.world.workers("store"))
    run.world.kafka.make_anew(topic)
    keeper.start(WEB, *run.world.workers("validate"), *run.world.workers("store"))
    run.world.wait_ready()
    run.traffic.resume()
    run.sleep(run.plan.fault_s / 4)


@case(Shape())
def topic_made_anew(run: Run) -> None:
    """`telemetry.valid`, drained, deleted and created again: its offsets begin at 0 once more."""
    _make_anew(run, topics.VALID.name)


@case(Shape())
def raw_topic_made_anew(run: Run) -> None:
    """`telemetry.raw`, drained, deleted and created again: its offsets begin at 0 once more."""
    _make_anew(run, topics.RAW.name)


@case(Shape(validate=2, standins={"validate": "die"}))
def validate_killed_between_produce_and_commit(run: Run) -> None:
    """validate killed exactly after its blocks are durable and before anything of it is committed; in a loop."""
    folder, keeper = run.world.run, run.world.keeper

    def die() -> None:
        run.sleep(1, 4)
        name = run.rng.choice(run.world.workers("validate"))
        note = signs.note_of(folder, name)
        note.unlink(missing_ok=True)
        signs.trigger_of(folder, name).touch()
        deadline = time.monotonic() + 10  # it may have no partition just now
        while not note.exists() and time.monotonic() < deadline:
            run.sleep(0.05)
        run.count("kills", note.exists())
        keeper.wait_running(name)

    run.repeat(die)
    for name in run.world.workers("validate"):
        signs.trigger_of(folder, name).unlink(missing_ok=True)
    assert run.notes["kills"], "it was never killed there"
