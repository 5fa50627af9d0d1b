"""The regression gate, and the proof that it would see a loss of 25%."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.control import cpu_s
from bench.gate import (
    LIMITS,
    MARGIN,
    calibrate,
    exceeded,
    interpreter,
    make_control,
    read_limits,
    write_limits,
)
from bench.steps import Step, open_steps

ROOT = Path(__file__).parents[3]
LOSS = 1.27


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def slowed(step: Step, factor: float) -> Step:
    """The same step, burning so much more CPU."""

    def run() -> None:
        burn(cpu_s(step.run) * (factor - 1))

    return replace(step, run=run)


@pytest.mark.timeout(600)
def test_no_step_is_slower_than_its_limit() -> None:
    if read_limits() is None:
        pytest.skip(f"no limits for {interpreter()}: python -m bench.gate --write")
    # A process of its own: the gate's times depend on what else lives in the process.
    gate = subprocess.run([sys.executable, "-m", "bench.gate"], cwd=ROOT, capture_output=True, text=True, timeout=580)
    print(gate.stdout)
    assert gate.returncode == 0, gate.stdout + gate.stderr


@pytest.mark.timeout(600)
def test_the_gate_sees_each_step_lose_a_quarter() -> None:
    control = make_control()
    missed = []
    with open_steps() as steps:
        assert len(steps) >= 5
        for step in steps:
            written = calibrate(step, control)
            if not exceeded(slowed(step, LOSS), control, written):
                missed.append(step.name)
    assert missed == []


def work(units: int) -> Callable[[], None]:
    return lambda: burn(units / 1_000)


def test_a_step_within_the_margin_passes_and_one_beyond_it_is_named() -> None:
    control = work(1)
    step = Step("burning", 1_000, work(2))
    assert exceeded(step, control, 2.0) == ""
    said = exceeded(slowed(step, MARGIN + 0.1), control, 2.0)
    assert said.startswith("burning: 2.")
    assert "was 2.000, the limit is 2.300" in said


def test_limits_are_kept_for_each_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text('{"Other 3.99 abacus": {"a": 1.0}}')
    assert read_limits(path) is None
    write_limits({"a": 2.00049}, path)
    assert read_limits(path) == {"a": 2.0}
    assert "Other 3.99 abacus" in path.read_text()


def test_every_step_has_a_limit_and_every_limit_a_step() -> None:
    written = read_limits(LIMITS)
    if written is None:
        pytest.skip(f"no limits for {interpreter()}")
    with open_steps() as steps:
        assert {step.name for step in steps} == set(written)
