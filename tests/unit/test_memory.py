"""What a worker has freed it does not hold."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20

THREADS_THAT_COME_AND_GO = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np, psutil, pyarrow as pa
from processors.memory import give_back_what_is_freed

if sys.argv[1] == "told":
    assert give_back_what_is_freed()
    assert pa.default_memory_pool().backend_name == "jemalloc"
rows = pa.array(["x" * 700] * 10_000)
order = pa.array(np.arange(10_000)[::-1].copy())
together = threading.Barrier(6)

def work(_):
    together.wait(30)
    taken = rows.take(order)
    return len(taken.buffers()[2].to_pybytes())

with ThreadPoolExecutor(6) as threads:
    before = psutil.Process().memory_info().rss
    for _ in range(12):
        list(threads.map(work, range(6)))
    time.sleep(8)
    print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_large_buffers_of_many_threads_are_given_back() -> None:
    def kept(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", THREADS_THAT_COME_AND_GO, how],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return int(done.stdout)

    assert kept("told") < 8 * MIB < kept("not told")
