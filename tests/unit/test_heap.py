"""Freed memory stays with the process, and what was imported is left to itself."""

import platform
import subprocess
import sys

import pytest

CODE = """
import gc, psutil
from midstream.heap import settle_heap

settle_heap()
assert gc.get_freeze_count() > 1_000
own = psutil.Process()
block = bytearray(8 << 20)
held = own.memory_info().rss
del block
assert held - own.memory_info().rss < 4 << 20, "it was given back at once"
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator's habits are set for glibc alone")
def test_what_was_freed_is_kept_and_what_was_imported_is_frozen() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
