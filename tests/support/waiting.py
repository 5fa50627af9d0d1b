"""Waiting in tests, with a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(what: str, ask: Callable[[], T | None], timeout_s: float = 20.0, interval_s: float = 0.05) -> T:
    """Ask until the answer is true; return it. Fails, naming ``what``, when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what} (last answer: {answer!r})"
        time.sleep(interval_s)
