"""The regression gate: CPU time of our steps against a control in the same process, ``python -m bench.gate``.

Exit code 1 when a step has become slower than its limit. ``--write`` measures and writes the limits into ``gate.json``
beside this file, to be done after every change that means to make a step faster or has to make it slower; ``--prove``
lets each step lose a quarter of its speed and sees that the gate would tell.

A step and the control run in short turns, and the median of the ratios of neighbours is one measurement: what others
do on the machine slows both down for longer than a turn takes. Some of it slows a step more than the control, by up to
a quarter for minutes, and hardly anything slows it less: so of several measurements the second lowest counts.
The limit is :data:`MARGIN` above what that was when it was written: beyond the scatter, below a loss of a quarter.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.control import control_bodies, cpu_s, handle
from bench.steps import Step, open_steps
from midstream.logs import configure_logs
from midstream.settings import Settings
from midstream.without_pandas import do_without_pandas
from processors.memory import give_back_what_is_freed, leave_out_what_is_imported

MARGIN = 1.15
LIMITS = Path(__file__).with_name("gate.json")

_LOSS = 4 / 3  # of a quarter of the speed
_CONTROL_EVENTS = 1_000
_TURNS = 30
_PROVING_TURNS = 10
_TRIALS = 8
_ENOUGH = 2
"""So many measurements within the limit are enough: one may be chance."""
_MOST_OF_THREE = 2


def interpreter() -> str:
    """Return what limits hold for: another Python or kind of processor has other ratios."""
    return f"{platform.python_implementation()} {platform.python_version().rpartition('.')[0]} {platform.machine()}"


def read_limits(path: Path = LIMITS) -> dict[str, float] | None:
    """Return the ratio that each step had when limits were written; None when they were not for this interpreter."""
    ratios: dict[str, float] | None = json.loads(path.read_text("utf-8")).get(interpreter())
    return ratios


def write_limits(ratios: Mapping[str, float], path: Path = LIMITS) -> None:
    """Keep these ratios as those of this interpreter."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    known[interpreter()] = {name: round(ratio, 3) for name, ratio in ratios.items()}
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", "utf-8")


def make_control() -> Step:
    """Return the control, ready to run."""
    bodies = control_bodies(_CONTROL_EVENTS)
    return Step("control", _CONTROL_EVENTS, lambda: handle(bodies))


def ratio(step: Step, control: Step, turns: int = _TURNS) -> float:
    """Return a step's CPU time an event as a multiple of the control's an event."""
    step.run()
    control.run()
    pairs = [(cpu_s(step.run), cpu_s(control.run)) for _ in range(turns)]
    return statistics.median(step_s / control_s for step_s, control_s in pairs) * control.events / step.events


def calibrate(step: Step, control: Step) -> float:
    """Return the ratio from which a step's limit is made."""
    return sorted(ratio(step, control) for _ in range(_TRIALS))[_ENOUGH - 1]


def exceeded(step: Step, control: Step, written: float, turns: int = _TURNS) -> str:
    """Return what is to be said of a step that is slower than its limit allows, "" if it is not."""
    limit = written * MARGIN
    found: list[float] = []
    for _ in range(_TRIALS):
        found.append(ratio(step, control, turns))
        if sum(one <= limit for one in found) == _ENOUGH:
            return ""
    shown = sorted(found)[_ENOUGH - 1]
    return f"{step.name}: {shown:.3f} times the control, was {written:.3f}, the limit is {limit:.3f}"


def slowed(step: Step, factor: float) -> Step:
    """Return the same step, which burns so much more CPU."""

    def run() -> None:
        more_s = cpu_s(step.run) * (factor - 1)
        until = time.process_time() + more_s
        while time.process_time() < until:
            pass

    return replace(step, run=run)


def unseen(steps: Sequence[Step], control: Step, loss: float) -> list[str]:
    """Return the steps of which the gate would not see that they take so many times as long as they do now.

    Two of three tries decide, each against a limit made in the same moment: what is proven is the margin, not the
    machine.
    """
    return [step.name for step in steps if not _is_seen(step, control, loss)]


def _is_seen(step: Step, control: Step, loss: float) -> bool:
    seen: list[bool] = []
    while max(seen.count(True), seen.count(False)) < _MOST_OF_THREE:
        seen.append(bool(exceeded(slowed(step, loss), control, ratio(step, control), _PROVING_TURNS)))
    return seen.count(True) == _MOST_OF_THREE


def as_a_worker() -> None:
    """Have this process keep memory, and collect what is in cycles, as workers do: it makes a difference of a third."""
    do_without_pandas()
    give_back_what_is_freed()
    leave_out_what_is_imported()


def main() -> int:
    """Check, or write the limits; exit code 1 when a step is slower, 2 when there are no limits for this Python."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="measure and write the limits of this Python")
    parser.add_argument("--prove", action="store_true", help="make each step slower on purpose and see that it is seen")
    arguments = parser.parse_args()
    configure_logs(Settings.model_validate({"log_level": "warning"}), "gate")
    as_a_worker()
    control = make_control()
    with open_steps() as steps:
        if arguments.write:
            ratios = {step.name: calibrate(step, control) for step in steps}
            write_limits(ratios)
            for name, value in ratios.items():
                print(f"{name}: {value:.3f} times the control")
            return 0
        if arguments.prove:
            missed = unseen(steps, control, _LOSS)
            print(f"not seen: {', '.join(missed)}" if missed else "the gate sees each step lose a quarter of its speed")
            return 1 if missed else 0
        written = read_limits()
        if written is None:
            print(f"no limits for {interpreter()}: write them with python -m bench.gate --write")
            return 2
        slower = [
            line
            for step in steps
            if (line := exceeded(step, control, written[step.name]) if step.name in written else f"{step.name}: new")
        ]
    print("\n".join(slower) or "no step is slower than its limit")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
