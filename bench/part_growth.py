"""Part ``growth``: more workers, more stored events, more partitions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.load import Load, Outcome, Runner
from bench.options import Options
from bench.part_cpu import CPU_COLUMNS, cpu_cells
from bench.pipeline import BenchPipeline
from bench.report import Part, Table, spread, times
from bench.stored import fill, let_merge, sample
from midstream.clickhouse.client import open_client

_STORED = (300_000, 3_000_000)
_STORED_FULL = (10_000_000, 100_000_000)
_PARTITIONS = (1, 64)
_DAYS_S = 30 * 24 * 3600
_FILL_TIMEOUT_MS = 300_000
_SAMPLE = 20_000


def run(options: Options) -> Part:
    """Measure each growth against the case before it, on the same home."""
    found: dict[str, list[Outcome]] = {}
    with BenchPipeline(options.folder, partitions=2) as pipeline:
        pipeline.push_dimensions()
        found["nothing stored, 1 worker each"] = _measure(options, pipeline)
        for stage in ("validate", "store"):
            pipeline.add_worker(stage)
        found["2 workers each"] = _measure(options, pipeline)
        pipeline.stop()
        stored = 0
        for target in _STORED_FULL if options.full else _STORED:
            pipeline.start()
            texts = _fill(options, pipeline, stored, target)
            pipeline.restart()  # a worker reads what is stored when it is given its partitions
            stored = target
            found[f"{stored:,} stored"] = _measure(options, pipeline, texts)
            pipeline.stop()
    for partitions in _PARTITIONS:
        with BenchPipeline(options.folder, partitions=partitions) as pipeline:
            pipeline.push_dimensions()
            found[f"{partitions} partition{'s' * (partitions > 1)}"] = _measure(options, pipeline)
    base = found["nothing stored, 1 worker each"]
    base_speed = sorted(one.stored_per_s for one in base)[len(base) // 2]
    rows = [
        [
            name,
            spread([one.stored_per_s for one in some], 0),
            times(sorted(one.stored_per_s for one in some)[len(some) // 2], base_speed),
            *cpu_cells(some),
            f"{max(one.peak_mb['store'] for one in some):,.0f}",
        ]
        for name, some in found.items()
    ]
    table = Table(
        "Growth, batches of 20",
        ["case", "stored a second", "times the first", *CPU_COLUMNS, "store, peak MB"],
        rows,
        "CPU in microseconds an event, minimum / median / maximum of the runs. Two partitions unless said otherwise; "
        "with two cores, two workers of each stage have no more cores than one. Where events are stored before, what "
        "is resent are these, spread over thirty days.",
    )
    troubles = [f"growth, {name}: {trouble}" for name, some in found.items() for o in some for trouble in o.troubles]
    return Part([table], {name: [one.for_json() for one in some] for name, some in found.items()}, troubles)


def _measure(options: Options, pipeline: BenchPipeline, stored: Sequence[str] = ()) -> list[Outcome]:
    """Measure runs; what is resent is each time another share of ``stored``, where that is given."""
    runner = Runner(pipeline)
    runner.run(Load(options.warm_up_events))
    outcomes = []
    for number in range(options.runs):
        options.say(f"growth: run {number + 1} of {options.runs}")
        outcomes.append(runner.run(Load(options.events, stored=tuple(stored[number :: options.runs]))))
    return outcomes


def _fill(options: Options, pipeline: BenchPipeline, first: int, events: int) -> list[str]:
    """Store events received over the last thirty days; return the texts of some of them."""
    clickhouse = open_client(pipeline.settings, timeout_ms=_FILL_TIMEOUT_MS)
    try:
        start_s = int(time.time()) - _DAYS_S
        filled = fill(clickhouse, events, start_s, _DAYS_S, lambda n: options.say(f"growth: {n:,} stored"), first=first)
        let_merge(clickhouse)
        return sample(clickhouse, filled, _SAMPLE)
    finally:
        clickhouse.close()
