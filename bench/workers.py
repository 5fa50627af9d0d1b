"""Part ``workers`` of :mod:`bench.scaling`: a backlog, stored by more and more workers."""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.far_engine import FarEngine
from bench.load import BLOCK_LOG_S, Load, Runner, counts_since, expected_of, judge, settle
from bench.pipeline import BenchError, BenchPipeline
from bench.processes import Watch
from bench.proof import incomplete, unproven
from bench.report import Part, Table, spread
from deploy.local.home import Home
from midstream import topics
from midstream.clickhouse.client import open_client

_WARM_UP_EVENTS = 2_000
_DRAIN_S = 300.0
_SEAL_S = 60.0
_SEAL_MS = 3_000
"""Blocks are sealed by their rows, so that those of all runs are alike, and next to none by this time."""
_QUERY_TIMEOUT_MS = 120_000
_POLL_S = 0.2
_SEND_S = 1.0
"""Within this time Kafka has what `validate` sealed."""

_BLOCKS = """
SELECT count(), sum(new_rows), toUnixTimestamp64Milli(max(visible_at)) FROM block_rows
WHERE stored_at >= fromUnixTimestamp64Milli({since:Int64}) AND new_rows > 0
"""


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of one backlog."""

    workers: int
    events: int
    """That were accepted."""
    events_per_s: float
    """That were stored: new ones."""
    rows_a_block: float
    cpu_us: dict[str, float]
    """CPU of each kind of process while it was stored, microseconds an event."""


def run(folder: Path, arguments: argparse.Namespace) -> Part:
    """Measure each number of workers, in turns."""
    found: dict[int, list[Drained]] = {count: [] for count in arguments.workers}
    troubles: list[str] = []
    sealing = {"seal_rows": arguments.block_rows, "seal_interval_ms": _SEAL_MS}
    with BenchPipeline(folder, partitions=arguments.partitions, **sealing) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        events = runner.run(Load(_WARM_UP_EVENTS)).events
        with FarEngine(pipeline, arguments.insert_ms / 1000, arguments.bytes_per_s) as far:
            for number in range(arguments.runs):
                for count in arguments.workers:
                    print(f"{count} workers, run {number + 1} of {arguments.runs}", file=sys.stderr)
                    drained, wrong = _drain(far, runner, count, arguments.events)
                    events += drained.events
                    found[count].append(drained)
                    troubles += [f"{count} workers: {trouble}" for trouble in wrong]
        topic_bytes = {
            topic.name: topic_size(pipeline.home, topic.name) / events for topic in (topics.RAW, topics.VALID)
        }
    data = {
        "workers": {str(count): [asdict(one) for one in some] for count, some in found.items()},
        "topic_bytes_an_event": topic_bytes,
    }
    return Part([table(found, arguments.insert_ms, arguments.partitions)], data, troubles)


def topic_size(home: Home, topic: str) -> int:
    """Return the bytes of a topic's segments on the local broker's disk."""
    return sum(path.stat().st_size for path in (home.kafka / "data").glob(f"{topic}-*/*.log"))


def _drain(far: FarEngine, runner: Runner, workers: int, events: int) -> tuple[Drained, list[str]]:
    """Make a backlog in front of so many workers, let it go, and look at what they made of it."""
    names = [f"worker-{number}" for number in range(workers)]
    for name in names:
        far.start(name)
    far.wait(workers)
    clickhouse = open_client(far.pipeline.settings, timeout_ms=_QUERY_TIMEOUT_MS)
    try:
        since = datetime.now(UTC)
        far.still(True)
        judged = _validated(far.pipeline)
        since_ms, sent = runner.send(Load(events))
        _wait_validated(far.pipeline, judged, sent.accepted_events)
        with Watch(far.pipeline.home) as watch:
            released_ms = time.time_ns() // 1_000_000
            far.still(False)
            expected = expected_of(sent)
            settle(clickhouse, since_ms, expected, _DRAIN_S)
        time.sleep(BLOCK_LOG_S)
        counts = counts_since(clickhouse, since_ms)
        ((blocks, rows, last_ms),) = clickhouse.rows(_BLOCKS, {"since": since_ms})
        troubles = judge(sent, expected, counts, int(rows), [*watch.ended, *far.ended])
        troubles += incomplete(clickhouse, released_ms) + unproven(far.pipeline, since)
    finally:
        clickhouse.close()
    for name in names:
        far.end(name, signal.SIGTERM)
    far.wait(0)
    cpu_us = {kind: used.cpu_s / sent.accepted_events * 1e6 for kind, used in watch.usage.items()}
    speed = int(rows) / (last_ms - released_ms) * 1000
    return Drained(workers, sent.accepted_events, speed, int(rows) / max(blocks, 1), cpu_us), troubles


def _wait_validated(pipeline: BenchPipeline, before: int, events: int) -> None:
    """Wait until ``validate`` has judged so many events more than before, and Kafka has their blocks."""
    deadline = time.monotonic() + _SEAL_S
    while _validated(pipeline) < before + events:
        if time.monotonic() > deadline:
            raise BenchError(f"validate has not judged {events:,} events within {_SEAL_S:.0f} s")
        time.sleep(_POLL_S)
    time.sleep(_SEND_S)


def _validated(pipeline: BenchPipeline) -> int:
    """Return how many events ``validate`` has judged since its start."""
    url = f"http://127.0.0.1:{pipeline.settings.validate_metrics_port}/metrics"
    text = httpx.get(url, trust_env=False, timeout=_SEND_S * 10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return int(sum(one.value for one in samples if one.name == "midstream_validated_events_total"))


def efficiency(speed: float, workers: int, least_speed: float, least_workers: int) -> float:
    """Return what so many workers do of what they would if each did as much as each of the least number of them."""
    return speed / workers / (least_speed / least_workers)


def table(found: Mapping[int, Sequence[Drained]], insert_ms: float, partitions: int) -> Table:
    """Return a row for each number of workers."""
    median = {count: statistics.median(one.events_per_s for one in some) for count, some in found.items()}
    least = min(found)
    kinds = ("store", "engine", "broker")
    rows = [
        [
            str(count),
            spread([one.events_per_s for one in some], 0),
            f"{median[count] / count:,.0f}",
            f"{efficiency(median[count], count, median[least], least):.2f}",
            spread([one.rows_a_block for one in some], 0),
            *(spread([one.cpu_us.get(kind, 0.0) for one in some], 0) for kind in kinds),
        ]
        for count, some in found.items()
    ]
    return Table(
        f"A backlog over {partitions} partitions, the answer to each insert {insert_ms:g} ms late",
        [
            "store workers",
            "stored a second",
            "each",
            "of linear",
            "events a block",
            *(f"{k}, us an event" for k in kinds),
        ],
        rows,
        "Minimum / median / maximum of the runs; each and of linear by medians. CPU of all processes of a kind.",
    )
