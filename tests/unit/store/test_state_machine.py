"""Dedupe and store under random clients, crashes, replays, faults and orders, against what must never be.

``make test ARGS="tests/unit/store/test_state_machine.py --hypothesis-profile=deep"`` looks much longer, at other
examples each time. A failure prints the steps as calls of :class:`tests.unit.store.machine.StoreMachine`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.store.drills import DRILLS
from tests.unit.store.machine import StoreMachine
from tests.unit.store.mutants import MUTANTS, Mutant
from tests.unit.store.world import Sizes, Violation

pytestmark = pytest.mark.timeout(6 * 3600)  # of the deep profile
_SHORT = settings(
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_HUNT = settings(_SHORT, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False)


def chosen(short: settings) -> settings:
    return settings() if settings.get_current_profile_name() == "deep" else short


@pytest.mark.parametrize(
    ("sizes", "examples"),
    [
        (Sizes(), 40),
        (Sizes(hash_bits=2), 15),
        (Sizes(memory_bytes=1 << 20, recent=1_000), 15),
    ],
    ids=["filters and saturation", "colliding hashes", "everything in memory"],
)
def test_every_event_is_stored_once_and_every_arrival_counted_once(sizes: Sizes, examples: int) -> None:
    class Machine(StoreMachine):
        pass

    Machine.sizes = sizes
    run_state_machine_as_test(Machine, settings=chosen(settings(_SHORT, max_examples=examples)))


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.__name__)
def test_a_fault_in_this_exact_order_breaks_nothing(drill: Callable[[], None]) -> None:
    drill()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_found_out(mutant: Mutant) -> None:
    class Machine(StoreMachine):
        sizes = mutant.sizes
        acks_first = mutant.acks_first

    with mutant.breaks(), pytest.raises(Violation):
        (mutant.run or partial(run_state_machine_as_test, Machine, settings=_HUNT))()
