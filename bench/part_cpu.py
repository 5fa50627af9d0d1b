"""Part ``cpu``: CPU time of each process and events a second, as fast as events are taken."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.load import Load, Outcome, Runner
from bench.options import Options
from bench.pipeline import BenchPipeline
from bench.processes import KINDS, Watch
from bench.report import Part, Table, spread

_IDLE_S = 5.0


def run(options: Options) -> Part:
    """Measure batches of 20 and of 200, plain and gzip, in turns."""
    loads = [Load(options.events, size, gzip) for size in (20, 200) for gzip in (False, True)]
    found: dict[str, list[Outcome]] = {load.name: [] for load in loads}
    with BenchPipeline(options.folder) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        options.say("cpu: warm-up")
        runner.run(Load(options.warm_up_events))
        idle = _idle(pipeline)
        for number in range(options.runs):
            for load in loads:
                options.say(f"cpu: batches of {load.name}, run {number + 1} of {options.runs}")
                found[load.name].append(runner.run(load))
    troubles = [f"cpu, {name}: {trouble}" for name, some in found.items() for one in some for trouble in one.troubles]
    data = {"idle_cores": idle, "runs": {name: [one.for_json() for one in some] for name, some in found.items()}}
    return Part([_cpu(found), _speed(found, loads), _idle_table(idle)], data, troubles)


def _idle(pipeline: BenchPipeline) -> dict[str, float]:
    """Return the cores that each kind of process uses while nothing is sent."""
    with Watch(pipeline.home) as watch:
        time.sleep(_IDLE_S)
    return {kind: used.cpu_s / _IDLE_S for kind, used in watch.usage.items()}


def cpu_cells(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the cells of :data:`CPU_COLUMNS`."""
    kinds = [spread([one.cpu_us.get(kind, 0.0) for one in outcomes]) for kind in KINDS]
    ours, every = spread([one.ours_us for one in outcomes]), spread([one.all_us for one in outcomes])
    by_control = spread([one.ours_us / one.control_us for one in outcomes])
    return [*kinds, ours, every, spread([one.control_us for one in outcomes], 2), by_control]


CPU_COLUMNS = [*KINDS, "ours", "all", "control", "ours / control"]


def _cpu(found: dict[str, list[Outcome]]) -> Table:
    return Table(
        "CPU time, microseconds an event",
        ["batches of", *CPU_COLUMNS],
        [[name, *cpu_cells(outcomes)] for name, outcomes in found.items()],
        "Minimum / median / maximum of the runs, as fast as events are taken. Ours: collector and api, validate, "
        "store. Control: orjson.loads of bytes of the same kind.",
    )


def _speed(found: dict[str, list[Outcome]], loads: Sequence[Load]) -> Table:
    rows = []
    for load in loads:
        some = found[load.name]
        memory = [max(one.peak_mb.get(kind, 0.0) for one in some) for kind in KINDS]
        rows.append(
            [
                load.name,
                spread([one.accepted_per_s for one in some], 0),
                spread([one.stored_per_s for one in some], 0),
                spread([one.cpu_us["collector and api"] * load.batch_events for one in some], 0),
                spread([one.sender_us for one in some]),
                *(f"{peak:,.0f}" for peak in memory),
                "yes" if not any(one.troubles for one in some) else "NO",
            ]
        )
    return Table(
        "Speed and memory",
        [
            "batches of",
            "accepted a second",
            "stored a second",
            "collector, us a request",
            "sender, us an event",
            *(f"{kind}, peak MB" for kind in KINDS),
            "exact",
        ],
        rows,
        "The sender runs on the same cores. Peaks are the sum over the processes of a kind, with the pages that they "
        "share counted in each.",
    )


def _idle_table(idle: dict[str, float]) -> Table:
    return Table("Cores used while nothing is sent", list(idle), [[f"{cores:.3f}" for cores in idle.values()]])
