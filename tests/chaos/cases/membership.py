"""(f) Workers joining and leaving."""

from __future__ import annotations

from tests.chaos.case import Run, case
from tests.chaos.world import Shape


@case(Shape())
def worker_storm(run: Run) -> None:
    """Workers of validate and store join and leave all the time, in order or killed."""
    keeper = run.world.keeper
    names = run.world.spare_workers("validate") + run.world.spare_workers("store")

    def blow() -> None:
        run.sleep(0.5, 2.5)
        name = run.rng.choice(names)
        if not keeper.pid(name):
            keeper.start(name)
            run.count("joined")
        elif run.rng.random() < 0.5:
            keeper.stop(name)
            run.count("left")
        else:
            keeper.hold(name)
            run.count("killed")

    run.repeat(blow)
