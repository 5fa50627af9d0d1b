"""What Python does before anything else in a process whose clock libfaketime shifts."""

import os
import select
import sys
import time

if "deploy.local.engine" in sys.orig_argv:
    # ClickHouse brings a clock of its own, which cannot be shifted, and waits by libc's, which would be.
    del os.environ["LD_PRELOAD"]
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _sleep(seconds: float, /) -> None:
    # libfaketime 0.9.10 shifts the moment at which a sleep by the monotonic clock ends, though it does not shift that
    # clock: time.sleep() fails with EINVAL. It leaves select() alone.
    select.select((), (), (), seconds)


time.sleep = _sleep
