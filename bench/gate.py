"""The regression gate: CPU time of our steps against a control in the same process, ``python -m bench.gate``.

Exit code 1 when a step has become slower than its limit. ``--write`` measures and writes the limits into ``gate.json``
beside this file, to be done after every change that means to make a step faster or has to make it slower.

A step and the control run in short turns, and the median of the ratios of neighbours counts: what others do on the
machine slows both down for longer than a turn takes.
The limit is :data:`MARGIN` above what was measured when it was written: beyond the scatter, below a loss of 25%.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.control import control_bodies, cpu_s, handle
from bench.steps import Step, open_steps
from midstream.logs import configure_logs
from midstream.settings import Settings

MARGIN = 1.15
LIMITS = Path(__file__).with_name("gate.json")

_CONTROL_EVENTS = 1_000
_TURNS = 40
_WRITE_TRIALS = 5
_ATTEMPTS = 3


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


def make_control() -> Callable[[], None]:
    """Return the control, ready to run."""
    bodies = control_bodies(_CONTROL_EVENTS)
    return lambda: handle(bodies)


def ratio(step: Step, control: Callable[[], None], turns: int = _TURNS) -> float:
    """Return a step's CPU time an event as a multiple of the control's an event."""
    step.run()
    control()
    pairs = [(cpu_s(step.run), cpu_s(control)) for _ in range(turns)]
    return statistics.median(step_s / control_s for step_s, control_s in pairs) * _CONTROL_EVENTS / step.events


def least_ratio(step: Step, control: Callable[[], None], limit: float) -> float:
    """Return a step's ratio; one above the limit is measured again before it is believed."""
    found = ratio(step, control)
    for _ in range(_ATTEMPTS - 1):
        if found <= limit:
            break
        found = min(found, ratio(step, control))
    return found


def calibrate(step: Step, control: Callable[[], None]) -> float:
    """Return the ratio from which a step's limit is made: the median of several measurements."""
    return statistics.median(ratio(step, control) for _ in range(_WRITE_TRIALS))


def exceeded(step: Step, control: Callable[[], None], written: float) -> str:
    """Return what is to be said of a step that is slower than its limit allows, "" if it is not."""
    limit = written * MARGIN
    found = least_ratio(step, control, limit)
    if found <= limit:
        return ""
    return f"{step.name}: {found:.3f} times the control, was {written:.3f}, the limit is {limit:.3f}"


def main() -> int:
    """Check, or write the limits; exit code 1 when a step is slower, 2 when there are no limits for this Python."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="measure and write the limits of this Python")
    arguments = parser.parse_args()
    configure_logs(Settings.model_validate({"log_level": "warning"}), "gate")
    control = make_control()
    with open_steps() as steps:
        if arguments.write:
            ratios = {step.name: calibrate(step, control) for step in steps}
            write_limits(ratios)
            for name, value in ratios.items():
                print(f"{name}: {value:.3f} times the control")
            return 0
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
