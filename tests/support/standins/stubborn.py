"""Does not listen to SIGTERM."""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started", flush=True)
while True:
    signal.pause()
