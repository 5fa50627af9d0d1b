"""(a) kill -9 in loops, and (i) of everything at once."""

from __future__ import annotations

from tests.chaos.case import Run, case
from tests.chaos.world import BROKER, ENGINE, WEB, Shape

_LEAST_S, _MOST_S = 2.0, 6.0
_ROUNDS_AT_MOST = 3
_ROUND_S = 15.0


def _kill_in_a_loop(run: Run, *names: str) -> None:
    """Kill one of these every few seconds, counted from when it runs again."""

    def kill() -> None:
        run.sleep(_LEAST_S, _MOST_S)
        name = run.rng.choice(names)
        run.count("kills", len(run.world.keeper.kill(name)))
        run.world.keeper.wait_running(name)

    run.repeat(kill)


@case(Shape())
def kill_collector(run: Run) -> None:
    """kill -9 of the collector in a loop: one of its two workers, or all with their parent."""

    def kill() -> None:
        run.sleep(_LEAST_S, _MOST_S)
        if run.rng.random() < 0.5:
            run.count("worker kills", bool(run.world.kill_web_worker(run.rng.choice)))
        else:
            run.count("kills", len(run.world.keeper.kill(WEB)))
            run.world.keeper.wait_running(WEB)

    run.repeat(kill)


@case(Shape())
def kill_validate(run: Run) -> None:
    """kill -9 of validate in a loop."""
    _kill_in_a_loop(run, *run.world.workers("validate"))


@case(Shape(store=2))
def kill_store(run: Run) -> None:
    """kill -9 of the two store workers in a loop."""
    _kill_in_a_loop(run, *run.world.workers("store"))


@case(Shape())
def kill_engine(run: Run) -> None:
    """kill -9 of the ClickHouse engine in a loop."""

    def kill() -> None:
        run.sleep(_LEAST_S, _MOST_S)
        run.count("kills", len(run.world.keeper.kill(ENGINE)))
        run.world.wait_engine()

    run.repeat(kill)


@case(Shape())
def kill_broker(run: Run) -> None:
    """kill -9 of Kafka in a loop."""

    def kill() -> None:
        run.sleep(_LEAST_S, _MOST_S)
        run.count("kills", len(run.world.keeper.kill(BROKER)))
        run.world.wait_broker()

    run.repeat(kill)


@case(Shape(store=2))
def kill_everything(run: Run) -> None:
    """kill -9 of all processes at once, which are then started again; three times."""
    rounds = max(1, min(_ROUNDS_AT_MOST, round(run.plan.fault_s / _ROUND_S)))
    for _ in range(rounds):
        run.sleep(_LEAST_S, _MOST_S)
        run.count("kills", len(run.world.keeper.kill(*run.world.keeper.names())))
        run.world.wait_ready(90)
