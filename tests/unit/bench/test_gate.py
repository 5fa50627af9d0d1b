"""The regression gate, and the proof that it would see a loss of 25%."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.gate import (
    LIMITS,
    MARGIN,
    exceeded,
    interpreter,
    read_limits,
    slowed,
    unseen,
    write_limits,
)
from bench.steps import Step, open_steps

ROOT = Path(__file__).parents[3]


def gate(*arguments: str) -> None:
    """Run it in a process of its own: times depend on what else lives in the process."""
    command = [sys.executable, "-m", "bench.gate", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_no_step_is_slower_than_its_limit() -> None:
    if read_limits() is None:
        pytest.skip(f"no limits for {interpreter()}: python -m bench.gate --write")
    gate()


@pytest.mark.timeout(600)
def test_the_gate_sees_each_step_lose_a_quarter() -> None:
    gate("--prove")


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def work(units: int) -> Callable[[], None]:
    return lambda: burn(units / 1_000)


def test_a_step_within_the_margin_passes_and_one_beyond_it_is_named() -> None:
    control = Step("control", 1_000, work(1))
    step = Step("burning", 1_000, work(2))
    assert exceeded(step, control, 2.0) == ""
    said = exceeded(slowed(step, MARGIN + 0.1), control, 2.0)
    assert said.startswith("burning: 2.")
    assert "was 2.000, the limit is 2.300" in said


def test_a_loss_that_the_margin_hides_is_called_unseen() -> None:
    control = Step("control", 1_000, work(1))
    step = Step("burning", 1_000, work(2))
    assert unseen([step], control, 1.05) == ["burning"]
    assert unseen([step], control, MARGIN + 0.1) == []


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
