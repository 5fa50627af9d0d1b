"""Part ``soak``: ten minutes at a rate that has to be held. Only in ``make bench-full``."""

from __future__ import annotations

from bench.load import Load, Runner
from bench.options import Options
from bench.part_cpu import CPU_COLUMNS, cpu_cells
from bench.pipeline import BenchPipeline
from bench.processes import KINDS
from bench.report import Part, Table

_RATE_PER_S = 25_000.0
_SHARE_OF_THE_MOST = 0.8
_SOAK_S = 600
_BATCH_EVENTS = 200
_CONNECTIONS = 64


def run(options: Options) -> Part:
    """Send, and look whether lag or memory grows; at the rate that is aimed at, or at what this machine can hold."""
    with BenchPipeline(options.folder) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        options.say("soak: the most")
        runner.run(Load(options.warm_up_events))
        most_per_s = runner.run(Load(4 * options.events, _BATCH_EVENTS)).stored_per_s
        rate = min(_RATE_PER_S, _SHARE_OF_THE_MOST * most_per_s)
        options.say(f"soak: {rate:,.0f} events a second for {_SOAK_S} s")
        batches = int(rate * _SOAK_S) // _BATCH_EVENTS
        one = runner.run(Load(batches * _BATCH_EVENTS, _BATCH_EVENTS, rate_events_s=rate, connections=_CONNECTIONS))
    tables = [
        Table(
            f"Ten minutes at {rate:,.0f} events a second, batches of {_BATCH_EVENTS}",
            ["accepted a second", "stored a second", "visible p50, ms", "visible p95, ms", *CPU_COLUMNS],
            [
                [
                    f"{one.accepted_per_s:,.0f}",
                    f"{one.stored_per_s:,.0f}",
                    f"{one.visible_ms['p50']:,.0f}",
                    f"{one.visible_ms['p95']:,.0f}",
                    *cpu_cells([one]),
                ]
            ],
            f"{_RATE_PER_S:,.0f} a second is what is aimed at; where less than that is the most that can be stored "
            f"({most_per_s:,.0f} here), {_SHARE_OF_THE_MOST:.0%} of the most is sent.",
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
    return Part(tables, {"most_per_s": most_per_s, **one.for_json()}, [f"soak: {trouble}" for trouble in one.troubles])
