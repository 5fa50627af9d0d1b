"""CPU time per event of every process, and the time until an event is visible: ``python -m bench.cpu --help``.

Sends to the pipeline that ``make run`` runs on this machine. States CPU time, because machines are shared and noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import aiohttp

from bench.mix import Batch, batches
from bench.processes import usage
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.settings import Settings, load_settings

_SETTLE_S = 60.0


async def send(url: str, token: str, queue: list[Batch], rate_events_s: float, connections: int) -> float:
    """Post the batches over a few connections, at a rate or (0) as fast as they are taken; return the seconds.

    A batch without a 2xx is sent again, as the SDK does.
    """
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "X-Device-Id": "bench"}
    waiting = iter(queue)
    began = time.monotonic()
    sent = 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal sent
        for batch in waiting:
            if rate_events_s:
                await asyncio.sleep(max(began + sent / rate_events_s - time.monotonic(), 0))
            sent += batch.events
            while True:
                try:
                    async with session.post(url, data=batch.body) as reply:
                        await reply.read()
                        if reply.status < 300:
                            break
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.5)

    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        await asyncio.gather(*(work(session) for _ in range(connections)))
    return time.monotonic() - began


def counts(clickhouse: ClickHouse) -> tuple[int, int, int]:
    """Return how many arrivals are stored, duplicate and rejected in all."""
    ((stored, duplicate, rejected),) = clickhouse.rows(
        "SELECT (SELECT count() FROM events), (SELECT count() FROM duplicates), (SELECT count() FROM rejects)"
    )
    return stored, duplicate, rejected


def measure(settings: Settings, events: int, rate: float, batch_events: int, connections: int) -> dict[str, object]:
    """Send, wait until all is in ClickHouse, and return what it took."""
    token = (settings.home / "demo-token").read_text("utf-8").strip()
    now_ms = time.time_ns() // 1_000_000
    queue = list(batches(now_ms, events, batch_events, now_ms))
    expected = sum(b.fresh for b in queue), sum(b.resent for b in queue), sum(b.invalid for b in queue)
    clickhouse = open_client(settings)
    before = counts(clickhouse)
    wanted = tuple(a + b for a, b in zip(before, expected, strict=True))
    started = usage(str(settings.home))
    began = time.monotonic()
    sending_s = asyncio.run(send(f"{settings.base_url}/v1/telemetry", token, queue, rate, connections))
    deadline = time.monotonic() + _SETTLE_S
    while (found := counts(clickhouse)) != wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    total_s = time.monotonic() - began
    ended = usage(str(settings.home))
    ((p50, p95, p99),) = clickhouse.rows(
        "SELECT quantiles(0.5, 0.95, 0.99)(date_diff('ms', received_at, stored_at)) AS q FROM events "
        "WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})",
        {"since": now_ms},
    )[0]
    return {
        "events": events,
        "batch_events": batch_events,
        "events_per_s_sent": round(events / sending_s),
        "events_per_s_stored": round(events / total_s),
        "counts": dict(zip(("stored", "duplicate", "rejected"), found, strict=True)),
        "exact": found == wanted,
        "visible_ms": {"p50": round(p50), "p95": round(p95), "p99": round(p99)},
        "processes": {
            kind: {
                "cpu_us_per_event": round((ended[kind].cpu_s - started[kind].cpu_s) / events * 1e6, 1),
                "cores": round((ended[kind].cpu_s - started[kind].cpu_s) / total_s, 3),
                "rss_mb": round(ended[kind].rss_bytes / 1e6),
            }
            for kind in started
            if kind in ended
        },
    }


def main() -> int:
    """Measure and print; exit code 1 if the counts are not exact."""
    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=20, help="events a batch")
    parser.add_argument("--rate", type=float, default=0, help="events a second; 0: as fast as they are taken")
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_args()
    result = measure(load_settings(), arguments.events, arguments.rate, arguments.batch, arguments.connections)
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0 if result["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
