"""Runs until SIGTERM; writes when it started and stopped to its output."""

import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: (print(f"stopped {time.monotonic()}", flush=True), sys.exit(0)))
print(f"started {time.monotonic()}", flush=True)
while True:
    signal.pause()
