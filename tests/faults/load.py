"""What a healthy pipeline carries while it is watched: apps' batches, and a fleet of devices."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench.sender import Plan
from tests.chaos.world import World
from tests.support.pipeline import ROOT

_EVENTS = 20
"""Of a batch."""
_DEVICES = 30
_END_S = 20.0


@contextmanager
def carrying(world: World, rate_events_s: float, seconds: float) -> Iterator[None]:
    """Send as long as the context lasts, and ``seconds`` at the most. What is refused is sent again, as apps do.

    Fails when the context ends well and a sender had given up before.
    """
    events = int(rate_events_s * seconds) // _EVENTS * _EVENTS
    plan = Plan(
        port=world.settings.port,
        token=world.token,
        seed=1,
        events=events,
        batch_events=_EVENTS,
        gzip=False,
        rate_events_s=rate_events_s,
        connections=8,
        retry_s=0.5,
    )
    batches = subprocess.Popen(
        [sys.executable, "-m", "bench.sender"],
        cwd=ROOT,
        env=world.client_env(),
        stdin=subprocess.PIPE,
        stdout=(world.logs / "sender.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    simulate = ["simulate", "fleet", "--devices", str(_DEVICES), "--seconds", str(int(seconds))]
    fleet = subprocess.Popen(
        [sys.executable, "-m", "midstream.cli", *simulate],
        cwd=ROOT,
        env=world.client_env(),
        stdin=subprocess.DEVNULL,
        stdout=(world.logs / "fleet.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    senders = {"sender": batches, "fleet": fleet}
    try:
        assert batches.stdin is not None
        batches.stdin.write(msgspec.json.encode(plan) + b"\ngo\n")
        batches.stdin.flush()
        yield
        for name, process in senders.items():
            assert process.poll() in (None, 0), (world.logs / f"{name}.log").read_text(errors="replace")[-2000:]
    finally:
        for process in senders.values():
            process.send_signal(signal.SIGTERM)
        for process in senders.values():
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
