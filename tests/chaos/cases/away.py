"""(c) Kafka restarted, and away for a minute. (d) The ClickHouse engine away, answering errors, hanging."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.proxy import Fault
from tests.chaos import spool
from tests.chaos.case import Plan, Run, case
from tests.chaos.judge import Judgement
from tests.chaos.world import BROKER, ENGINE, WEB, Shape
from tests.support.waiting import wait_until

_SHORT_TIMEOUT_MS = 3_000
_DRAIN_S = 120.0
_LEARN_S = 12.0
"""After this the collector must know that Kafka is away and must accept into its spool alone: what was under way when
Kafka went has waited for ``kafka_timeout_ms`` at most."""


def _away_s(plan: Plan) -> float:
    return plan.away_s + 5


def _accepted_all(run: Run, judgement: Judgement) -> list[str]:
    """Everything must be exact, and the client must not have noticed that Kafka was away."""
    faults = list(judgement.faults)
    if run.notes["refused while away"]:
        faults.append(f"{run.notes['refused while away']} requests were not accepted while Kafka was away")
    if not run.notes["accepted while away"]:
        faults.append("no request was accepted while Kafka was away")
    return faults


@case(Shape())
def broker_restart(run: Run) -> None:
    """Kafka stopped in order and started again, in a loop."""

    def restart() -> None:
        run.sleep(2, 5)
        run.world.keeper.stop(BROKER)
        run.count("restarts")
        run.world.keeper.start(BROKER)
        run.world.wait_broker()

    run.repeat(restart)


@case(Shape(store=1), lasts=_away_s, verdict=_accepted_all)
def broker_away_60s(run: Run) -> None:
    """Kafka away for 60 s: the collector's spool accepts everything meanwhile."""
    run.sleep(2)
    run.world.keeper.hold(BROKER)
    away_at = time.monotonic()
    run.sleep(min(_LEARN_S, run.plan.away_s / 2))
    accepted, refused = run.traffic.acknowledged, run.traffic.refused
    run.sleep(max(run.plan.away_s - (time.monotonic() - away_at), 0))
    run.notes["accepted while away"] = run.traffic.acknowledged - accepted
    run.notes["refused while away"] = run.traffic.refused - refused
    run.notes["spooled bytes"] = run.world.spooled_bytes()
    run.world.keeper.start(BROKER)
    run.world.wait_broker()


@case(Shape(), lasts=_away_s)
def spool_drained_twice(run: Run) -> None:
    """A spool drained, the collector killed, and the drained segments found there once more."""
    folder, copies_in = run.world.settings.spool_folder, run.world.root / "copies"
    run.sleep(2)
    run.world.keeper.hold(BROKER)
    run.sleep(run.plan.away_s / 2)
    copies = spool.copy_segments(folder, copies_in)
    assert copies, "nothing was spooled"
    run.world.keeper.start(BROKER)
    run.world.wait_broker()
    wait_until("the spool is drained", lambda: not any(map(_still_there(folder, copies_in), copies)), _DRAIN_S)
    # As if it had been killed after Kafka acknowledged the records and before the segments were deleted.
    run.world.keeper.hold(WEB)
    run.notes["segments put back"] = spool.put_back(copies, copies_in, folder)
    assert run.notes["segments put back"] == len(copies)
    run.world.keeper.start(WEB)
    wait_until("it is drained again", lambda: not any(map(_still_there(folder, copies_in), copies)), _DRAIN_S)
    run.sleep(2)


def _still_there(folder: Path, copies_in: Path) -> Callable[[Path], bool]:
    return lambda copy: (folder / copy.relative_to(copies_in)).exists()


@case(Shape(), lasts=_away_s)
def engine_away_60s(run: Run) -> None:
    """The engine away for 60 s."""
    run.sleep(2)
    run.world.keeper.hold(ENGINE)
    run.sleep(run.plan.away_s)
    run.world.keeper.start(ENGINE)
    run.world.wait_engine()


@case(Shape(proxied=frozenset({ENGINE})))
def engine_errors(run: Run) -> None:
    """The engine answers with errors, half of the time after it has done what was asked."""
    proxy = run.world.proxies[ENGINE]

    def answer_errors() -> None:
        run.sleep(1, 3)
        proxy.set(Fault.ERROR)
        run.sleep(0.5, 5)
        proxy.set(Fault.NONE)

    run.repeat(answer_errors)
    run.notes |= {"errors": proxy.errors, "errors though done": proxy.errors_done}
    assert proxy.errors_done, "no error was answered to what was done"


@case(
    Shape(proxied=frozenset({ENGINE}), settings={"clickhouse_timeout_ms": _SHORT_TIMEOUT_MS}),
)
def engine_hangs(run: Run) -> None:
    """The engine does not answer for longer than it is waited for: frozen, or nothing comes back from it."""
    proxy, keeper = run.world.proxies[ENGINE], run.world.keeper

    def hang() -> None:
        run.sleep(2, 4)
        kind = run.rng.choice(("frozen", "still", "answers still"))
        if kind == "frozen":
            keeper.freeze(ENGINE)
        else:
            proxy.set(Fault.STILL if kind == "still" else Fault.STILL_ANSWERS)
        run.sleep(_SHORT_TIMEOUT_MS / 1000 + 1, _SHORT_TIMEOUT_MS / 1000 + 5)
        keeper.thaw(ENGINE)
        proxy.set(Fault.NONE)
        run.count(f"hangs, {kind}")

    run.repeat(hang)
