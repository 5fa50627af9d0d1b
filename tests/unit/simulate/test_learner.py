"""Simulated learners do what learners do, and their runner tells it rightly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.assignments.indicators import indicators, step_facts
from midstream.assignments.runner import read_telemetry
from midstream.simulate.learner import Exercise, ExerciseStep, Learner

STARTED_MS = 1_769_860_800_000
EXERCISE = Exercise(
    "loops",
    tuple(ExerciseStep(f"{at:02}-step", ease) for at, ease in enumerate((0.95, 0.8, 0.7, 0.15, 0.6, 0.75, 0.9))),
)


def learner(number: int, code_bytes: int = 120) -> Learner:
    return Learner(1, number, EXERCISE, STARTED_MS, code_bytes)


@given(st.integers(0, 1_000), st.integers(0, 300))
def test_the_same_learner_does_the_same_again(number: int, n: int) -> None:
    assert learner(number).telemetry(n) == learner(number).telemetry(n)
    assert learner(number).interactions != learner(number + 1).interactions


@given(st.integers(0, 1_000))
def test_the_indicators_are_those_of_what_it_did(number: int) -> None:
    """Counted once more from the interactions themselves."""
    one = learner(number)
    for n in range(0, len(one.interactions) + 1, 3):
        done = one.interactions[:n]
        telemetry = read_telemetry(json.dumps(one.telemetry(n)).encode())
        metrics = indicators(telemetry).metrics
        assert metrics["sessions"] == sum(act.doing == "begin" for act in done)
        assert metrics["opened_steps"] == sum(act.doing == "open" for act in done)
        assert metrics["completed_steps"] == sum(act.doing == "complete" for act in done)
        assert metrics["interactions"] == sum(act.doing in ("compile", "test", "ask") for act in done)
        for facts in step_facts(telemetry):
            failed = [act.doing for act in done if act.step == facts.position and act.exit_code]
            assert facts.compilation_struggles == failed.count("compile")
            assert facts.test_struggles == failed.count("test")


@given(st.integers(0, 1_000))
def test_time_goes_on_and_telemetry_grows(number: int) -> None:
    one = learner(number)
    times = [act.at_ms for act in one.interactions]
    assert times == sorted(times)
    assert times[0] == STARTED_MS
    sizes = [len(json.dumps(one.telemetry(n))) for n in range(len(times) + 1)]
    assert sizes == sorted(sizes)
    assert one.telemetry(len(times) + 5) == one.telemetry(len(times))


def test_of_many_some_skip_some_give_up_some_stay_away_and_the_hard_step_stands_out() -> None:
    learners = [learner(number) for number in range(200)]
    telemetries = [read_telemetry(json.dumps(one.telemetry(10_000)).encode()) for one in learners]
    by_step = list(zip(*map(step_facts, telemetries), strict=True))
    stuck = [sum(facts.opened and not facts.completed for facts in step) for step in by_step]
    assert stuck.index(max(stuck)) == 3
    assert max(stuck) > 2 * sorted(stuck)[-2]
    assert sum(facts.skipped for step in by_step for facts in step) > 20
    rates = [indicators(telemetry).completion_rate for telemetry in telemetries]
    assert 0 in rates or min(rates) < 50
    assert max(rates) == 100
    assert sum(one.interactions[-1].doing != "end" for one in learners) > 5
    assert any(sum(act.doing == "begin" for act in one.interactions) > 1 for one in learners)


@pytest.mark.parametrize("code_bytes", [1_000, 100_000])
def test_code_is_as_long_as_wished(code_bytes: int) -> None:
    steps = [step for number in range(9) for step in learner(number, code_bytes).telemetry(10_000)["steps"]]
    runs = [run for step in steps for run in (*step["compilations"], *step["tests"])]
    assert len(runs) > 9
    assert all(0.9 * code_bytes < len(run["source_code"]) <= code_bytes for run in runs)
