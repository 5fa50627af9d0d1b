"""Part ``soak``: ten minutes at a rate that has to be held. Only in ``make bench-full``."""

from __future__ import annotations

from bench.load import Load, Runner
from bench.options import Options
from bench.part_cpu import CPU_COLUMNS, cpu_cells
from bench.pipeline import BenchPipeline
from bench.processes import KINDS
from bench.report import Part, Table

_RATE_PER_S = 25_000.0
_SOAK_S = 600
_BATCH_EVENTS = 200
_CONNECTIONS = 64


def run(options: Options) -> Part:
    """Send, and look whether lag or memory grows."""
    with BenchPipeline(options.folder) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        runner.run(Load(options.warm_up_events))
        options.say(f"soak: {_RATE_PER_S:,.0f} events a second for {_SOAK_S} s")
        one = runner.run(
            Load(int(_RATE_PER_S) * _SOAK_S, _BATCH_EVENTS, rate_events_s=_RATE_PER_S, connections=_CONNECTIONS)
        )
    tables = [
        Table(
            f"Ten minutes at {_RATE_PER_S:,.0f} events a second, batches of {_BATCH_EVENTS}",
            ["accepted a second", "stored a second", "visible p95, ms", *CPU_COLUMNS],
            [
                [
                    f"{one.accepted_per_s:,.0f}",
                    f"{one.stored_per_s:,.0f}",
                    f"{one.visible_ms['p95']:,.0f}",
                    *cpu_cells([one]),
                ]
            ],
        ),
        Table(
            "In each fifth of the time",
            ["", *(str(part + 1) for part in range(5))],
            [
                ["visible p95, ms", *(f"{value:,.0f}" for value in one.visible_p95_ms_by_fifth)],
                *([f"{kind}, MB", *(f"{value:,.0f}" for value in one.rss_mb_by_fifth[kind])] for kind in KINDS),
            ],
        ),
    ]
    return Part(tables, one.for_json(), [f"soak: {trouble}" for trouble in one.troubles])
