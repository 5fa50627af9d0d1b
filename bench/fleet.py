"""What a fleet's reports cost end to end: ``python -m bench.fleet --help``.

Starts a pipeline of its own, lets simulated devices report to it (``midstream simulate fleet``), compares their
states, and takes the CPU time of every process from the operating system's accounting. A second run of the same fleet
is beside a load of events. Prints JSON; exit code 1: a state was wrong, or a report was refused.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.control import parse_us_per_event
from bench.load import Load, Runner
from bench.pipeline import BenchPipeline, bench_folder
from bench.processes import Watch
from midstream.clickhouse.client import open_client

_LIMIT_S = 900
_VISIBLE = """SELECT count(), quantiles(0.5, 0.95, 0.99)(toFloat64(dateDiff('millisecond', received, stored))) FROM (
SELECT min(device_rows.received_at) AS received, min(device_rows.stored_at) AS stored FROM device_rows
WHERE kind = 'value' AND key = 'status' AND received_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
GROUP BY device_id, digest, receipt_id)"""


def simulate(pipeline: BenchPipeline, folder: Path, devices: int, rate_per_s: float, seconds: float) -> dict[str, Any]:
    """Let a fleet report; return its own account."""
    command = [sys.executable, "-m", "midstream.cli", "simulate", "fleet", "--check", "--json"]
    command += ["--url", f"http://127.0.0.1:{pipeline.settings.port}", "--keys", str(folder / "keys.json")]
    command += ["--devices", str(devices), "--rate", str(rate_per_s), "--seconds", str(seconds)]
    environment = {**os.environ, **pipeline.env}
    done = subprocess.run(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=_LIMIT_S, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    return {**found, "exit": done.returncode}


def measured(pipeline: BenchPipeline, folder: Path, devices: int, rate_per_s: float, seconds: float) -> dict[str, Any]:
    """Return what a run took."""
    since_ms = time.time_ns() // 1_000_000
    control_us = parse_us_per_event()
    with Watch(pipeline.home) as watch:
        found = simulate(pipeline, folder, devices, rate_per_s, seconds)
    clickhouse = open_client(pipeline.settings)
    try:
        ((reports, visible),) = clickhouse.rows(_VISIBLE, {"since": since_ms})
    finally:
        clickhouse.close()
    acknowledged = max(found.get("acknowledged", 0), 1)
    cpu_us = {kind: round(used.cpu_s / acknowledged * 1e6, 1) for kind, used in watch.usage.items()}
    return {
        "control_us": round(min(control_us, parse_us_per_event()), 2),
        "cpu_us_a_report": {**cpu_us, "all": round(sum(cpu_us.values()), 1)},
        "peak_mb": {kind: round(max(used.rss_bytes) / 1e6) for kind, used in watch.usage.items()},
        "reports_in_clickhouse": reports,
        "stored_after_receipt_ms": dict(zip(("p50", "p95", "p99"), (round(one, 1) for one in visible), strict=True)),
        **{
            name: found.get(name)
            for name in ("exit", "acknowledged", "resent", "late", "unanswered", "statuses", "reply_ms")
        },
        "wrong_states": len(found.get("wrong_states") or []),
        "refused": found.get("refused"),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--every-s", type=float, default=10.0, help="how often each reports")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--events-s", type=int, default=1_000, help="of the load beside the second run")
    args = parser.parse_args()
    rate_per_s = args.devices / args.every_s
    folder = Path(tempfile.mkdtemp(prefix="midstream-bench-"))
    with bench_folder(folder) as held, BenchPipeline(held, partitions=2) as pipeline:
        first = simulate(pipeline, folder, args.devices, rate_per_s, args.every_s)  # registers all, and warms up
        result: dict[str, Any] = {
            "devices": args.devices,
            "reports_s": rate_per_s,
            "registered": first.get("registered"),
        }
        result["alone"] = measured(pipeline, folder, args.devices, rate_per_s, args.seconds)
        runner = Runner(pipeline)
        events = int(args.events_s * (args.seconds + 30))
        with runner.sending(Load(events, rate_events_s=args.events_s)):
            result[f"beside {args.events_s} events a second"] = measured(
                pipeline, folder, args.devices, rate_per_s, args.seconds
            )
    print(json.dumps(result, indent=1))
    runs = [one for one in result.values() if isinstance(one, dict)]
    return int(any(one["exit"] or one["wrong_states"] for one in runs))


if __name__ == "__main__":
    sys.exit(main())
