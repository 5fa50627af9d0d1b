"""What a case is, and what it has at hand while it breaks things."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.judge import Judgement
from tests.chaos.traffic import Traffic
from tests.chaos.world import World


@dataclass(frozen=True)
class Plan:
    """How large and how long."""

    events: int = 200_000
    """Events at least."""
    fault_s: float = 45.0
    """How long a case breaks things."""
    away_s: float = 60.0
    """How long something is away, in the cases of that name."""
    settle_s: float = 240.0
    """Longest wait for everything to be through afterwards."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings of the pipeline, beside those that a case needs."""


@dataclass
class Run:
    """One run of a case."""

    world: World
    traffic: Traffic
    plan: Plan
    rng: random.Random
    notes: dict[str, Any] = field(default_factory=dict)
    """What is worth knowing afterwards; goes into the result's file."""

    def count(self, what: str, times: int = 1) -> None:
        """Count something in the notes."""
        self.notes[what] = self.notes.get(what, 0) + times

    def sleep(self, least_s: float, most_s: float | None = None) -> float:
        """Sleep, a random time between the two; return it."""
        seconds = least_s if most_s is None else self.rng.uniform(least_s, most_s)
        time.sleep(seconds)
        return seconds

    def repeat(self, work: Callable[[], None], seconds: float | None = None) -> None:
        """Repeat ``work`` as long as the case breaks things."""
        deadline = time.monotonic() + (self.plan.fault_s if seconds is None else seconds)
        while time.monotonic() < deadline:
            work()


Inject = Callable[[Run], None]
Verdict = Callable[[Run, Judgement], list[str]]


def exact(_: Run, judgement: Judgement) -> list[str]:
    """Return what is wrong where everything must be right."""
    return judgement.faults


def can_run() -> str:
    """Return no reason to skip."""
    return ""


@dataclass(frozen=True)
class Case:
    """A way to break things, and what must be true afterwards."""

    name: str
    title: str
    inject: Inject
    shape: Callable[[Plan], Any]
    """Makes the :class:`tests.chaos.world.Shape`."""
    lasts: Callable[[Plan], float]
    """Seconds that it is expected to break things: the load is spread over them."""
    verdict: Verdict
    """Returns what is wrong; empty: passed."""
    why_not: Callable[[], str]
    """Returns why it cannot run here; empty: it can."""
    audit_exit: int | None
    """What ``midstream audit`` must say in the end; None: whatever."""
    warm_s: float
    """Seconds of load before it begins."""


CASES: dict[str, Case] = {}
"""All cases by name, in the order in which they run."""


def case(
    shape: Any,
    *,
    lasts: Callable[[Plan], float] = lambda plan: plan.fault_s,
    verdict: Verdict = exact,
    why_not: Callable[[], str] = can_run,
    audit_exit: int | None = 0,
    warm_s: float = 2.0,
) -> Callable[[Inject], Inject]:
    """Make a case of a function that injects a fault; its name is the case's, its docstring the title."""

    def register(inject: Inject) -> Inject:
        name = inject.__name__
        assert name not in CASES, name
        title = (inject.__doc__ or "").strip().partition("\n")[0]
        make = shape if callable(shape) else lambda _plan: shape
        CASES[name] = Case(name, title, inject, make, lasts, verdict, why_not, audit_exit, warm_s)
        return inject

    return register
