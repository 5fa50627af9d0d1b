"""What one simulated learner does with an exercise, and what the exercise's runner sends of it as it goes.

A learner opens one step after the other, compiles and tests until it works, now and then asks an assistant, takes a
break for some hours, skips a step, gives one up, or stays away for good. A seed, a number and an exercise give the
same learner again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

Doing = Literal["begin", "end", "open", "compile", "test", "ask", "complete"]

_S, _H = 1_000, 3_600_000
_SKIPS = 0.06
_TAKES_A_BREAK = 0.08
_STAYS_AWAY = 0.03
_ASKS = 0.3
_CODE_LINE = 'print("attempt {attempt}: {slug}")\n'


@dataclass(frozen=True, slots=True)
class ExerciseStep:
    """A step of an exercise."""

    slug: str
    ease: float
    """Chance that an average learner's run of it succeeds."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """An exercise, which is an asset."""

    slug: str
    steps: tuple[ExerciseStep, ...]


@dataclass(frozen=True, slots=True)
class Interaction:
    """One thing that a learner did."""

    at_ms: int
    """Since 1970."""
    doing: Doing
    step: int = -1
    """The index of the step; -1 for none."""
    exit_code: int = 0
    """Of a compilation or test."""


class Learner:
    """One learner of one exercise.

    Args:
        seed: of all learners.
        number: tells one learner from another.
        exercise: what is learnt.
        started_at_ms: when the exercise was opened first, since 1970.
        code_bytes: how long the code of each run is, about.
    """

    def __init__(self, seed: int, number: int, exercise: Exercise, started_at_ms: int, code_bytes: int = 120) -> None:
        self.number = number
        self.exercise = exercise
        self._choice = random.Random(f"{seed}/{exercise.slug}/{number}")
        self._skill = self._choice.gauss(0, 0.15)
        self._patience = self._choice.randint(3, 12)
        self._id = f"sim-{seed}-{number}-{exercise.slug}"
        self._started_at_ms = self._now_ms = started_at_ms
        self._code_bytes = code_bytes
        self.interactions: list[Interaction] = []
        """All that it does, in the order of time."""
        self._live()

    def telemetry(self, n: int) -> dict[str, Any]:
        """Return what the runner sends after the first ``n`` interactions (all, if there are fewer)."""
        done = self.interactions[:n]
        sessions: list[dict[str, int]] = []
        steps = [self._untouched(position) for position in range(len(self.exercise.steps))]
        for one in done:
            if one.doing == "begin":
                sessions.append({"started_at": one.at_ms})
            elif one.doing == "end":
                sessions[-1]["ended_at"] = one.at_ms
            else:
                self._touch(steps[one.step], one)
        return {
            "telemetry_id": self._id,
            "user_id": self.number,
            "slug": self.exercise.slug,
            "agent": "vscode",
            "tutorial_started_at": self._started_at_ms,
            "last_interaction_at": done[-1].at_ms if done else self._started_at_ms,
            "workout_session": sessions,
            "steps": steps,
        }

    def _live(self) -> None:
        self._do("begin", after_ms=0)
        for at, step in enumerate(self.exercise.steps):
            if self._choice.random() < _STAYS_AWAY:
                return  # the session has no end: the runner was never told
            if self._choice.random() < _SKIPS:
                continue
            if self._choice.random() < _TAKES_A_BREAK:
                self._do("end", after_ms=self._choice.randint(1, 60) * _S)
                self._do("begin", after_ms=self._choice.randint(1, 40) * _H)
            self._do("open", at, after_ms=self._choice.randint(2, 40) * _S)
            self._work_on(at, step)
        self._do("end", after_ms=self._choice.randint(1, 60) * _S)

    def _work_on(self, at: int, step: ExerciseStep) -> None:
        ease = min(max(step.ease + self._skill, 0.02), 0.98)
        for failures in range(self._patience):
            for doing in ("compile", "test"):
                # Most of what fails does so when it is tested.
                fails = self._choice.random() > (ease if doing == "test" else (1 + ease) / 2)
                self._do(doing, at, after_ms=self._choice.randint(20, 300) * _S, exit_code=int(fails))
                if fails:
                    break
            else:
                self._do("complete", at, after_ms=self._choice.randint(1, 5) * _S)
                return
            if failures and self._choice.random() < _ASKS:
                self._do("ask", at, after_ms=self._choice.randint(10, 90) * _S)
            ease = min(ease + 0.05, 0.98)

    def _do(self, doing: Doing, step: int = -1, *, after_ms: int, exit_code: int = 0) -> None:
        self._now_ms += after_ms
        self.interactions.append(Interaction(self._now_ms, doing, step, exit_code))

    def _untouched(self, position: int) -> dict[str, Any]:
        return {
            "slug": self.exercise.steps[position].slug,
            "position": position,
            "files": ["app.py", "tests.py"],
            "is_testeable": True,
            "opened_at": None,
            "completed_at": None,
            "is_completed": False,
            "compilations": [],
            "tests": [],
            "ai_interactions": [],
            "quiz_submissions": [],
        }

    def _touch(self, step: dict[str, Any], one: Interaction) -> None:
        if one.doing == "open":
            step["opened_at"] = one.at_ms
        elif one.doing == "complete":
            step.update(completed_at=one.at_ms, is_completed=True)
        elif one.doing == "ask":
            step["ai_interactions"].append({"asked_at": one.at_ms, "question": "What does this error mean?"})
        else:
            runs = step["compilations" if one.doing == "compile" else "tests"]
            line = _CODE_LINE.format(attempt=len(runs) + 1, slug=step["slug"])
            runs.append(
                {
                    "source_code": line * max(self._code_bytes // len(line), 1),
                    "stdout": "" if one.exit_code else f"attempt {len(runs) + 1}: {step['slug']}\n",
                    "exit_code": one.exit_code,
                    "starting_at": one.at_ms - 2 * _S,
                    "ending_at": one.at_ms,
                }
            )
