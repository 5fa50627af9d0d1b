"""Indicators of how learners do with an exercise, from what its runner sent. Version 1.

- *Time* is the sum of the workout sessions in seconds. One without an end lasts to the last interaction; one without a
  beginning, or that ends before it begins, is 0.
- A step is *completed* as ``is_completed`` says, or, where that says nothing, if it has a time of completion; *opened*
  if it has a time of opening; *skipped* if it is not opened though one of a higher position is (later in the list,
  unless every step has a position).
- *Completion* is the share of completed steps of all steps.
- *Interactions* are the compilations, tests and interactions with an assistant of all steps.
- A *struggle* is a run, be it a compilation or a test, whose exit code is a number other than 0; the *mean* of
  struggles is taken over opened steps.
- The *time in a step* that was opened lasts from then to the next later opening of another step, or else to the last
  interaction; never less than 0.
- Engagement is 100 (0.3 min(time / 36,000 s, 1) + 0.2 min(sessions / 5, 1) + 0.3 completion
  + 0.2 min(interactions / 100, 1)).
- Frustration is 100 (0.3 share of opened steps that are not completed + 0.2 min(time in these / 18,000 s, 1)
  + 0.2 min(mean compilation struggles / 10, 1) + 0.2 min(mean test struggles / 10, 1)
  + 0.1 share of skipped steps of all steps).

A share of nothing is 0. Whoever changes what a number means gives it another version.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from midstream.assignments.runner import Run, Step, Telemetry

ALGO_VERSION = 1.0
"""Published as ``metrics_algo_version``."""

FULL_TIME_S = 36_000
FULL_SESSIONS = 5
FULL_INTERACTIONS = 100
FULL_STUCK_TIME_S = 18_000
FULL_STRUGGLES = 10

_MS_PER_S = 1_000
_DECIMALS = 2


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What a learner did in a step."""

    slug: str
    position: int
    """As the runner gave it, or the place in its list, from 0, unless every step has one."""
    opened: bool
    completed: bool
    skipped: bool
    compilation_struggles: int
    test_struggles: int
    seconds: float
    """In the step."""


@dataclass(frozen=True, slots=True)
class Indicators:
    """How a learner does, in percent, rounded to two decimals."""

    engagement_score: float
    frustration_score: float
    completion_rate: float
    metrics: dict[str, int | float]
    """What they were made of."""


def step_facts(telemetry: Telemetry) -> list[StepFacts]:
    """Return the facts of each step, in the order of positions."""
    steps = telemetry.steps or ()
    openings = sorted(step.opened_at for step in steps if step.opened_at is not None)
    placed = _placed(steps)
    last_opened = max((position for position, step in placed if step.opened_at is not None), default=None)
    return [
        StepFacts(
            step.slug or "",
            position,
            step.opened_at is not None,
            _is_completed(step),
            step.opened_at is None and last_opened is not None and last_opened > position,
            _struggles(step.compilations),
            _struggles(step.tests),
            _seconds_in(step, openings, telemetry.last_interaction_at),
        )
        for position, step in placed
    ]


def indicators(telemetry: Telemetry) -> Indicators:
    """Return the indicators, as this module's docstring defines them."""
    sessions = telemetry.workout_session or ()
    steps = step_facts(telemetry)
    opened = [step for step in steps if step.opened]
    stuck = [step for step in opened if not step.completed]
    completed = sum(step.completed for step in steps)
    skipped = sum(step.skipped for step in steps)
    time_s = fsum(
        _seconds(session.started_at, telemetry.last_interaction_at if session.ended_at is None else session.ended_at)
        for session in sessions
    )
    stuck_s = fsum(step.seconds for step in stuck)
    interactions = sum(
        len(step.compilations or ()) + len(step.tests or ()) + len(step.ai_interactions or ())
        for step in telemetry.steps or ()
    )
    # Runs of a step that was never opened are interactions, but say nothing of opened ones.
    compilation_struggles = sum(step.compilation_struggles for step in opened)
    test_struggles = sum(step.test_struggles for step in opened)
    completion = _share(completed, len(steps))
    mean_compilation, mean_test = _share(compilation_struggles, len(opened)), _share(test_struggles, len(opened))
    return Indicators(
        _percent(
            0.3 * min(time_s / FULL_TIME_S, 1)
            + 0.2 * min(len(sessions) / FULL_SESSIONS, 1)
            + 0.3 * completion
            + 0.2 * min(interactions / FULL_INTERACTIONS, 1)
        ),
        _percent(
            0.3 * _share(len(stuck), len(opened))
            + 0.2 * min(stuck_s / FULL_STUCK_TIME_S, 1)
            + 0.2 * min(mean_compilation / FULL_STRUGGLES, 1)
            + 0.2 * min(mean_test / FULL_STRUGGLES, 1)
            + 0.1 * _share(skipped, len(steps))
        ),
        _percent(completion),
        {
            "time_s": round(time_s, 3),
            "sessions": len(sessions),
            "steps": len(steps),
            "opened_steps": len(opened),
            "completed_steps": completed,
            "incomplete_opened_steps": len(stuck),
            "skipped_steps": skipped,
            "interactions": interactions,
            "compilation_struggles": compilation_struggles,
            "test_struggles": test_struggles,
            "time_in_incomplete_steps_s": round(stuck_s, 3),
            "completion": round(completion, 6),
            "incomplete_share": round(_share(len(stuck), len(opened)), 6),
            "mean_compilation_struggles": round(mean_compilation, 6),
            "mean_test_struggles": round(mean_test, 6),
            "skipped_share": round(_share(skipped, len(steps)), 6),
        },
    )


def _placed(steps: Sequence[Step]) -> list[tuple[int, Step]]:
    placed = [(step.position, step) for step in steps if step.position is not None]
    if len(placed) < len(steps):
        return list(enumerate(steps))
    return sorted(placed, key=lambda one: one[0])


def _is_completed(step: Step) -> bool:
    return step.completed_at is not None if step.is_completed is None else step.is_completed


def _struggles(runs: Sequence[Run] | None) -> int:
    return sum(run.exit_code is not None and run.exit_code != 0 for run in runs or ())


def _seconds_in(step: Step, openings: Sequence[float], last_interaction_at: float | None) -> float:
    """Return the time in a step; ``openings`` are those of all steps, in order."""
    if step.opened_at is None:
        return 0.0
    after = bisect_right(openings, step.opened_at)
    return _seconds(step.opened_at, openings[after] if after < len(openings) else last_interaction_at)


def _seconds(start_ms: float | None, end_ms: float | None) -> float:
    if start_ms is None or end_ms is None:
        return 0.0
    return max(end_ms - start_ms, 0.0) / _MS_PER_S


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(share: float) -> float:
    return round(min(max(100 * share, 0.0), 100.0), _DECIMALS)
