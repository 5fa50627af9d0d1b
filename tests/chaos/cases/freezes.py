"""(b) SIGSTOP beyond the session timeout, then SIGCONT, while another worker takes over."""

from __future__ import annotations

from tests.chaos.case import Run, case
from tests.chaos.world import SESSION_TIMEOUT_S, Shape


def _freeze_in_turn(run: Run, stage: str) -> None:
    names = run.world.workers(stage)

    def freeze() -> None:
        run.sleep(1, 3)
        name = run.rng.choice(names)
        if run.world.keeper.freeze(name):
            run.count("freezes")
            run.sleep(SESSION_TIMEOUT_S + 1, SESSION_TIMEOUT_S + 5)
            run.world.keeper.thaw(name)

    run.repeat(freeze)


@case(Shape(store=2))
def freeze_store(run: Run) -> None:
    """SIGSTOP of a store worker beyond the session timeout, then SIGCONT."""
    _freeze_in_turn(run, "store")


@case(Shape(validate=2))
def freeze_validate(run: Run) -> None:
    """SIGSTOP of a validate worker beyond the session timeout, then SIGCONT."""
    _freeze_in_turn(run, "validate")
