"""Indicators: cases computed by hand, and what must hold for any telemetry."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.assignments.indicators import ALGO_VERSION, StepFacts, indicators, step_facts
from midstream.assignments.runner import Run, Session, Step, Telemetry, read_telemetry

T = 1_700_000_000_000
"""When the exercise began, in milliseconds since 1970."""
S, MIN, H = 1_000, 60_000, 3_600_000
OK, BAD = {"exit_code": 0}, {"exit_code": 1}


def scores(sent: dict[str, Any]) -> tuple[float, float, float]:
    found = indicators(read_telemetry(json.dumps(sent).encode()))
    return found.engagement_score, found.frustration_score, found.completion_rate


def metrics(sent: dict[str, Any]) -> dict[str, int | float]:
    return indicators(read_telemetry(json.dumps(sent).encode())).metrics


def test_the_version_is_published() -> None:
    assert ALGO_VERSION == 1.0


def test_of_nothing_all_is_0() -> None:
    assert scores({}) == (0.0, 0.0, 0.0)
    assert set(metrics({}).values()) == {0}


def test_all_there_is() -> None:
    """12 h in 6 sessions, all of 2 steps completed, 120 interactions: each part of engagement is full.

    engagement = 100 (0.3 + 0.2 + 0.3 + 0.2) = 100. Nothing is incomplete, failed or skipped: frustration = 0.
    """
    sessions = [{"started_at": T + n * 3 * H, "ended_at": T + n * 3 * H + 2 * H} for n in range(6)]
    step = {"opened_at": T, "completed_at": T + H, "compilations": [OK] * 30, "tests": [OK] * 30}
    sent = {"workout_session": sessions, "steps": [{**step, "position": 0}, {**step, "position": 1}]}
    assert scores(sent) == (100.0, 0.0, 100.0)
    assert metrics(sent)["time_s"] == 43_200


def test_half_of_it() -> None:
    """Sessions of 3 h and 2 h: t = 18,000 s, t / 36,000 = 0.5. 2 of 5 sessions: 0.4. 1 of 2 steps: 0.5.

    Interactions: 10 compilations + 10 tests + 5 with an assistant = 25 of 100: 0.25.
    engagement = 100 (0.3 x 0.5 + 0.2 x 0.4 + 0.3 x 0.5 + 0.2 x 0.25) = 100 (0.15 + 0.08 + 0.15 + 0.05) = 43.

    The second step was opened at 1 h and is not completed; the last interaction was at 2 h: 3,600 s of 18,000: 0.2.
    Opened, not completed: 1 of 2: 0.5. Struggles: 4 compilations / 2 opened = 2 of 10: 0.2; 2 tests / 2 = 1 of 10: 0.1.
    frustration = 100 (0.3 x 0.5 + 0.2 x 0.2 + 0.2 x 0.2 + 0.2 x 0.1 + 0) = 100 (0.15 + 0.04 + 0.04 + 0.02) = 25.
    """
    sent = {
        "last_interaction_at": T + 2 * H,
        "workout_session": [
            {"started_at": T, "ended_at": T + 3 * H},
            {"started_at": T + 4 * H, "ended_at": T + 6 * H},
        ],
        "steps": [
            {"position": 0, "opened_at": T, "completed_at": T + H, "compilations": [BAD] + [OK] * 5, "tests": [OK] * 4},
            {
                "position": 1,
                "opened_at": T + H,
                "compilations": [BAD] * 3 + [OK],
                "tests": [BAD, {"exit_code": -11}] + [OK] * 4,
                "ai_interactions": [{}, {}, {}, {}, {}],
            },
        ],
    }
    assert scores(sent) == (43.0, 25.0, 50.0)
    assert metrics(sent) == {
        "time_s": 18_000.0,
        "sessions": 2,
        "steps": 2,
        "opened_steps": 2,
        "completed_steps": 1,
        "incomplete_opened_steps": 1,
        "skipped_steps": 0,
        "interactions": 25,
        "compilation_struggles": 4,
        "test_struggles": 2,
        "time_in_incomplete_steps_s": 3_600.0,
        "completion": 0.5,
        "incomplete_share": 0.5,
        "mean_compilation_struggles": 2.0,
        "mean_test_struggles": 1.0,
        "skipped_share": 0.0,
    }


def test_as_frustrated_as_can_be() -> None:
    """One opened step, never completed, open for 5 h = 18,000 s: 1; 10 failed compilations, 10 failed tests: 1, 1.

    Four of five steps before it were never opened: skipped 4 / 5 = 0.8.
    frustration = 100 (0.3 + 0.2 + 0.2 + 0.2 + 0.1 x 0.8) = 98.
    engagement: no session, 0 of 5 steps, 20 of 100 interactions = 100 x 0.2 x 0.2 = 4.
    """
    sent = {
        "last_interaction_at": T + 5 * H,
        "steps": [{"position": n} for n in range(4)]
        + [{"position": 4, "opened_at": T, "compilations": [BAD] * 10, "tests": [BAD] * 10}],
    }
    assert scores(sent) == (4.0, 98.0, 0.0)
    # More of everything adds nothing.
    more = {**sent, "last_interaction_at": T + 50 * H}
    more["steps"] = [*sent["steps"][:4], {**sent["steps"][4], "compilations": [BAD] * 99}]  # type: ignore[index, dict-item, list-item]
    assert scores(more)[1] == 98.0


def test_sessions_that_do_not_end_or_end_before_they_begin() -> None:
    """1,000 s; until the last interaction, at 5,000 s: 4,000 s; ended before it began: 0; begins after the last
    interaction: 0; without a beginning: 0. Together 5,000 s of 36,000 = 0.138888..., and 5 sessions: 1.

    engagement = 100 (0.3 x 0.1388888... + 0.2) = 4.1666... + 20 = 24.17.
    """
    sent = {
        "last_interaction_at": T + 5_000 * S,
        "workout_session": [
            {"started_at": T, "ended_at": T + 1_000 * S},
            {"started_at": T + 1_000 * S, "ended_at": None},
            {"started_at": T + 2_000 * S, "ended_at": T + 1_500 * S},
            {"started_at": T + 6_000 * S},
            {"ended_at": T},
        ],
    }
    assert scores(sent) == (24.17, 0.0, 0.0)
    assert metrics(sent)["time_s"] == 5_000
    # Without a last interaction, only the first one lasts: 1,000 / 36,000 = 0.02777..., 100 x 0.3 of it = 0.8333...
    assert scores({**sent, "last_interaction_at": None}) == (20.83, 0.0, 0.0)


def test_what_completes_a_step() -> None:
    """Of seven, completed: by the flag, by the time, by the flag against the absent time: 3. False is not completed,
    whatever the time. Completion = 3 / 7 = 42.857...%; engagement = 0.3 of it = 12.857...

    Opened are 2 (the last two), of which the latter is completed: 1 of 2 = 0.5, and no last interaction: its time runs
    from 0 to 30 min, when the other was opened: 1,800 s of 18,000 = 0.1. Skipped are the five before: 5 / 7.
    frustration = 100 (0.3 x 0.5 + 0.2 x 0.1 + 0.1 x 0.7142857...) = 15 + 2 + 7.142857... = 24.14.
    """
    sent = {
        "steps": [
            {"is_completed": True},
            {"completed_at": T},
            {"is_completed": False, "completed_at": T},
            {},
            {"is_completed": None, "completed_at": None},
            {"opened_at": T},
            {"opened_at": T + 30 * MIN, "is_completed": True},
        ]
    }
    assert scores(sent) == (12.86, 24.14, 42.86)
    assert [step.completed for step in step_facts(read_telemetry(json.dumps(sent).encode()))] == [
        *(True, True, False, False, False, False, True)
    ]


def test_time_in_a_step_goes_to_the_next_opening_or_to_the_last_interaction() -> None:
    """Steps opened at 0, 10 min (position 2) and 4 min (position 1), the last interaction at 16 min; none completed.

    In them: 0 to 4 = 240 s, 4 to 10 = 360 s, 10 to 16 = 360 s; together 960 s of 18,000 = 0.05333...
    frustration = 100 (0.3 + 0.2 x 0.05333...) = 31.0666...
    """
    sent = {
        "last_interaction_at": T + 16 * MIN,
        "steps": [
            {"slug": "a", "position": 0, "opened_at": T},
            {"slug": "c", "position": 2, "opened_at": T + 10 * MIN},
            {"slug": "b", "position": 1, "opened_at": T + 4 * MIN, "tests": [OK]},
        ],
    }
    assert scores(sent) == (0.2, 31.07, 0.0)
    facts = step_facts(read_telemetry(json.dumps(sent).encode()))
    assert [(step.slug, step.seconds) for step in facts] == [("a", 240.0), ("b", 360.0), ("c", 360.0)]
    # Before the opening there is no time in a step: 600 s remain of 0 to 4 and 4 to 10.
    assert metrics({**sent, "last_interaction_at": T + 9 * MIN})["time_in_incomplete_steps_s"] == 600.0


def test_steps_opened_at_one_moment_are_both_open_until_the_next() -> None:
    """Two opened at 0, one at 1 min: 60 s and 60 s, and 0 s of the last, which has no last interaction after it."""
    sent = {"steps": [{"opened_at": T}, {"opened_at": T}, {"opened_at": T + MIN}]}
    assert metrics(sent)["time_in_incomplete_steps_s"] == 120.0


def test_who_is_skipped() -> None:
    """Positions 5, 1, 3, 2, 9 with 2 and 3 opened: 1 is skipped; 5 and 9 are still to come. Share 1 / 5 = 0.2.

    No step is completed: 0.3 x 1; the time from 2 to 3 is 60 s of 18,000 = 0.00333..., that in 3 is unknown: 0.
    frustration = 100 (0.3 + 0.2 x 0.00333... + 0.1 x 0.2) = 30 + 0.0666... + 2 = 32.07.
    """
    opened = {3: T + MIN, 2: T}
    sent = {"steps": [{"position": n, "opened_at": opened.get(n)} for n in (5, 1, 3, 2, 9)]}
    assert scores(sent) == (0.0, 32.07, 0.0)
    facts = step_facts(read_telemetry(json.dumps(sent).encode()))
    assert [(step.position, step.skipped) for step in facts] == [
        *((1, True), (2, False), (3, False), (5, False), (9, False))
    ]


def test_without_all_positions_the_list_is_the_order() -> None:
    sent = {"steps": [{"slug": "a", "position": 9}, {"slug": "b", "opened_at": T}, {"slug": "c", "position": 0}]}
    assert step_facts(read_telemetry(json.dumps(sent).encode())) == [
        StepFacts("a", 0, False, False, True, 0, 0, 0.0),
        StepFacts("b", 1, True, False, False, 0, 0, 0.0),
        StepFacts("c", 2, False, False, False, 0, 0, 0.0),
    ]


def test_only_a_number_other_than_0_is_a_struggle() -> None:
    """Exit codes 0, null, none, 0.0: no struggle; 1, -1, 137, 0.5: 4, of 1 opened step: 4 / 10.

    frustration = 100 (0.3 x 0 + 0.2 x 0.4 + 0.2 x 0.4) = 16; engagement = 100 (0.3 + 0.2 x 16 / 100) = 33.2.
    Runs of the step that was not opened are interactions (8 and 8, of which one step has none), and no struggles.
    """
    codes: list[Any] = [{"exit_code": code} for code in (0, None, 0.0, 1, -1, 137, 0.5)] + [{}]
    opened = {"opened_at": T, "is_completed": True, "compilations": codes, "tests": codes}
    assert scores({"steps": [opened]}) == (33.2, 16.0, 100.0)
    # Another step, never opened, later: completion 1 / 2; engagement = 100 (0.15 + 0.2 x 32 / 100) = 21.4.
    sent = {"steps": [opened, {"compilations": codes, "tests": codes}]}
    assert scores(sent) == (21.4, 16.0, 50.0)
    assert metrics(sent)["compilation_struggles"] == 4


_moments = st.none() | st.integers(T, T + 20 * H).map(float)
_runs = st.none() | st.lists(st.builds(Run, st.none() | st.sampled_from([0, 1, 2.5])), max_size=5).map(tuple)
_steps = st.builds(
    Step,
    slug=st.sampled_from("abc"),
    position=st.none() | st.integers(0, 9),
    opened_at=_moments,
    completed_at=_moments,
    is_completed=st.none() | st.booleans(),
    compilations=_runs,
    tests=_runs,
)
_telemetry = st.builds(
    Telemetry,
    last_interaction_at=_moments,
    workout_session=st.none() | st.lists(st.builds(Session, _moments, _moments), max_size=7).map(tuple),
    steps=st.none() | st.lists(_steps, max_size=7).map(tuple),
)


@given(_telemetry)
def test_scores_have_bounds(telemetry: Telemetry) -> None:
    found = indicators(telemetry)
    for score in (found.engagement_score, found.frustration_score, found.completion_rate):
        assert 0 <= score <= 100
        assert score == round(score, 2)
    facts = step_facts(telemetry)
    assert len(facts) == len(telemetry.steps or ())
    assert all(step.seconds >= 0 and not (step.skipped and step.opened) for step in facts)
    json.dumps(found.metrics, allow_nan=False)


@given(_telemetry, st.data())
def test_with_positions_the_order_of_the_list_does_not_matter(telemetry: Telemetry, data: st.DataObject) -> None:
    places = data.draw(st.permutations(range(len(telemetry.steps or ()))))
    steps = [
        msgspec.structs.replace(step, position=place) for step, place in zip(telemetry.steps or (), places, strict=True)
    ]
    one = msgspec.structs.replace(telemetry, steps=tuple(steps))
    other = msgspec.structs.replace(telemetry, steps=tuple(data.draw(st.permutations(steps))))
    assert indicators(one) == indicators(other)
    assert step_facts(one) == step_facts(other)


@given(_telemetry, st.integers(0, 6), st.sampled_from(["compilations", "tests"]))
def test_a_failing_run_never_lowers_frustration(telemetry: Telemetry, at: int, kind: str) -> None:
    steps = list(telemetry.steps or ())
    if at >= len(steps):
        return
    steps[at] = msgspec.structs.replace(steps[at], **{kind: (*(getattr(steps[at], kind) or ()), Run(1))})
    worse = msgspec.structs.replace(telemetry, steps=tuple(steps))
    assert indicators(worse).frustration_score >= indicators(telemetry).frustration_score
    assert indicators(worse).engagement_score >= indicators(telemetry).engagement_score


@given(_telemetry)
def test_completing_a_step_never_lowers_completion_or_raises_frustration(telemetry: Telemetry) -> None:
    done = tuple(msgspec.structs.replace(step, is_completed=True) for step in telemetry.steps or ())
    better = indicators(msgspec.structs.replace(telemetry, steps=done))
    assert better.completion_rate == (100 if done else 0)
    assert better.frustration_score <= indicators(telemetry).frustration_score


@pytest.mark.parametrize("runs", [0, 1, 1_000])
def test_many_runs_are_counted_and_no_more(runs: int) -> None:
    sent = {"steps": [{"opened_at": T, "tests": [BAD] * runs}]}
    assert metrics(sent)["test_struggles"] == runs
    assert scores(sent)[1] == round(30 + 20 * min(runs / 10, 1), 2)
