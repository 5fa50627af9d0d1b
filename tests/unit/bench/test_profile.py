"""Which of several processes is recorded."""

from __future__ import annotations

from typing import cast

import psutil

from bench.profile import busiest


class _Process:
    def __init__(self, pid: int, used_s: float, uses_s: float) -> None:
        self.pid = pid
        self._used_s = used_s
        self._uses_s = uses_s

    def cpu_times(self) -> tuple[float, float]:
        used_s, self._used_s = self._used_s, self._used_s + self._uses_s
        return used_s, 0.0


def test_the_process_that_works_now_is_recorded_not_the_one_that_worked_before() -> None:
    processes = [_Process(1, used_s=0.1, uses_s=0.0), _Process(2, used_s=9.0, uses_s=0.01), _Process(3, 1.0, 0.5)]
    assert busiest(cast(list[psutil.Process], processes), within_s=0.0) == 3
