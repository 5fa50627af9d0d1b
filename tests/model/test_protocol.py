"""Every state of the protocol keeps the invariant; with any of its rules broken, one does not."""

from __future__ import annotations

import pytest

from tests.model.explore import Explored, explore
from tests.model.protocol import Protocol
from tests.model.scenarios import MUTANTS, SCENARIOS, Mutant
from tests.model.state import Rules, Scenario, canonical

_MAX_STATES = 300_000


def explored(scenario: Scenario, rules: Rules | None = None) -> Explored:
    model = Protocol(scenario, rules)
    found = explore(model.initial(), model.successors, model.violation, model.is_done, _MAX_STATES, canonical)
    print(f"{scenario.name}: {found}")
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_state_keeps_the_invariant(scenario: Scenario) -> None:
    found = explored(scenario)
    assert not found.violation, str(found)
    assert found.states > 100


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_found_out(mutant: Mutant) -> None:
    found = explored(mutant.scenario, mutant.rules)
    assert found.violation.startswith(mutant.breaks), str(found)
    assert found.trace
