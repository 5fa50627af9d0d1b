"""Whether the counts of a pipeline are proven, by its own audit."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime

from bench.pipeline import BenchPipeline
from midstream.clickhouse.client import ClickHouse

_LIMIT_S = 600.0
_COMPLETE_S = 60.0
_POLL_S = 0.5

_COMPLETE = "SELECT toUnixTimestamp64Milli(max(complete_until)) FROM complete_until"


def incomplete(clickhouse: ClickHouse, until_ms: int) -> list[str]:
    """Wait until ``complete_until`` is past a moment (epoch milliseconds), as the audit ends there; return what is
    wrong if it is not in time."""
    deadline = time.monotonic() + _COMPLETE_S
    while clickhouse.rows(_COMPLETE)[0][0] <= until_ms:
        if time.monotonic() > deadline:
            return [f"complete_until is not past the load within {_COMPLETE_S:.0f} s"]
        time.sleep(_POLL_S)
    return []


def unproven(pipeline: BenchPipeline, since: datetime) -> list[str]:
    """Return what ``midstream audit`` does not prove of what was received since; nothing when all is."""
    command = [sys.executable, "-m", "midstream.cli", "audit", "--json", "--from", f"{since:%Y-%m-%dT%H:%M:%SZ}"]
    done = subprocess.run(command, env=pipeline.env, capture_output=True, text=True, timeout=_LIMIT_S, check=False)  # noqa: S603
    return [] if done.returncode == 0 else [f"the audit proves nothing: {done.stdout[:2_000]} {done.stderr[-500:]}"]
