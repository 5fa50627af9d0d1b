"""Walks every state that a model can reach, breadth first, so that the first violation found has the shortest trace."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class Explored:
    """What a walk came to."""

    states: int
    depth: int
    """Steps to the state that is farthest from the first."""
    violation: str = ""
    """What does not hold; "" when all does, everywhere."""
    trace: list[str] = field(default_factory=list)
    """The steps that lead there."""

    def __str__(self) -> str:
        found = f"{self.states} states, {self.depth} steps deep: "
        if not self.violation:
            return found + "holds"
        steps = "".join(f"\n  {number}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{found}{self.violation}{steps}"


def explore(
    initial: State,
    successors: Callable[[State], Iterable[tuple[str, State]]],
    violation: Callable[[State], str],
    is_done: Callable[[State], bool],
    max_states: int,
    canonical: Callable[[State], State] = lambda state: state,
) -> Explored:
    """Walk from ``initial`` until everything has been seen or something does not hold.

    Args:
        initial: the first state.
        successors: each step from a state, named, with the state it leads to.
        violation: what does not hold in a state, "" when all does.
        is_done: whether a state may be the last; one that nothing leads out of and that is not done is a violation.
        max_states: more states than these are an error of the model.
        canonical: returns the one of several states alike that stands for them all.

    Raises:
        MemoryError: more than ``max_states``.
    """
    initial = canonical(initial)
    numbers = {initial: 0}
    states, came_from, depths = [initial], [-1], [0]
    queue = deque([0])
    while queue:
        number = queue.popleft()
        wrong, is_stuck = violation(states[number]), True
        if not wrong:
            for _, raw in successors(states[number]):
                is_stuck = False
                following = canonical(raw)
                if following not in numbers:
                    if len(states) >= max_states:
                        raise MemoryError(f"more than {max_states} states")
                    numbers[following] = len(states)
                    queue.append(len(states))
                    states.append(following)
                    came_from.append(number)
                    depths.append(depths[number] + 1)
            if is_stuck and not is_done(states[number]):
                wrong = "nothing can happen any more"
        if wrong:
            path = [number]
            while came_from[path[-1]] >= 0:
                path.append(came_from[path[-1]])
            way = [states[one] for one in reversed(path)]
            steps, last = _steps(way, successors, canonical)
            return Explored(len(states), depths[number], violation(last) or wrong, steps)
    return Explored(len(states), max(depths))


def _steps(
    way: list[State], successors: Callable[[State], Iterable[tuple[str, State]]], canonical: Callable[[State], State]
) -> tuple[list[str], State]:
    """Name the steps of a way through canonical states, as one run of the model would take them, and its last state."""
    steps: list[str] = []
    at = way[0]
    for wanted in way[1:]:
        step, at = next((step, raw) for step, raw in successors(at) if canonical(raw) == wanted)
        steps.append(step)
    return steps, at
