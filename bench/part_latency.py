"""Part ``latency``: from the reply until the event can be read, at shares of what is the most."""

from __future__ import annotations

import statistics

from bench.load import Load, Outcome, Runner
from bench.options import Options
from bench.pipeline import BenchPipeline
from bench.report import Part, Table, spread

_SHARES = (0.10, 0.50, 0.80)
_FIXED_PER_S = (2_000, 10_000)
_SENDING_S = 8.0
_CONNECTIONS = 64
_BATCH_EVENTS = 20


def run(options: Options) -> Part:
    """Find the most, then send at shares of it and at fixed rates below it."""
    found: dict[str, list[Outcome]] = {}
    rates: dict[str, float] = {}
    with BenchPipeline(options.folder) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        options.say("latency: warm-up")
        runner.run(Load(options.warm_up_events))
        options.say("latency: the most")
        most = [runner.run(Load(options.events, _BATCH_EVENTS)) for _ in range(options.runs)]
        most_per_s = statistics.median(one.stored_per_s for one in most)
        rates = {f"{share:.0%} of the most": most_per_s * share for share in _SHARES}
        rates |= {f"{rate:,} a second": rate for rate in _FIXED_PER_S if rate < most_per_s}
        for number in range(options.runs):
            for name, rate in rates.items():
                options.say(f"latency: {name}, run {number + 1} of {options.runs}")
                # As long as for the most, if that is shorter: small runs stay small.
                events = max(int(min(rate * _SENDING_S, options.events)) // _BATCH_EVENTS, 50) * _BATCH_EVENTS
                load = Load(events, _BATCH_EVENTS, rate_events_s=rate, connections=_CONNECTIONS)
                found.setdefault(name, []).append(runner.run(load))
    outcomes = {"the most": most, **found}
    rows = [
        [
            name,
            f"{rates.get(name, most_per_s):,.0f}",
            spread([one.accepted_per_s for one in some], 0),
            *(spread([one.visible_ms[p] for one in some], 0) for p in ("p50", "p95", "p99")),
            spread([one.reply_ms["p99"] for one in some], 0),
            spread([one.ours_us for one in some]),
            spread([one.all_us for one in some]),
            spread([one.control_us for one in some], 2),
        ]
        for name, some in outcomes.items()
    ]
    table = Table(
        "Milliseconds from the reply until an event is visible, batches of 20",
        [
            "rate",
            "events a second wanted",
            "accepted a second",
            "visible p50",
            "visible p95",
            "visible p99",
            "reply p99",
            "ours, us an event",
            "all, us an event",
            "control",
        ],
        rows,
        "Minimum / median / maximum of the runs. Reply: from the request to its 200, beside it. The most: sent without "
        "a pause, so that events wait for one another.",
    )
    troubles = [
        f"latency, {name}: {trouble}" for name, some in outcomes.items() for o in some for trouble in o.troubles
    ]
    data = {"most_per_s": most_per_s, "runs": {name: [o.for_json() for o in some] for name, some in outcomes.items()}}
    return Part([table], data, troubles)
