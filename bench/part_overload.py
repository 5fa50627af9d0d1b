"""Part ``overload``: very many clients at once, which do not wait after a 503."""

from __future__ import annotations

from bench.load import Load, Outcome, Runner
from bench.options import Options
from bench.pipeline import BenchPipeline
from bench.report import Part, Table, spread

_CONNECTIONS = (16, 2_560)
_BATCH_EVENTS = 20


def run(options: Options) -> Part:
    """Send over a few connections, and over so many that most of what comes is more than can be taken."""
    found: dict[int, list[Outcome]] = {}
    with BenchPipeline(options.folder) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        options.say("overload: warm-up")
        runner.run(Load(options.warm_up_events))
        for number in range(options.runs):
            for connections in _CONNECTIONS:
                options.say(f"overload: {connections} connections, run {number + 1} of {options.runs}")
                load = Load(options.events, _BATCH_EVENTS, connections=connections, retry_s=0.0)
                found.setdefault(connections, []).append(runner.run(load))
    rows = [
        [
            str(connections),
            spread([_offered(one) / one.sent.sending_s for one in some], 0),
            spread([one.sent.accepted_batches / one.sent.sending_s for one in some], 0),
            spread([_offered(one) / one.sent.accepted_batches for one in some]),
            *(spread([one.reply_ms[p] for one in some], 0) for p in ("p50", "p95", "p99")),
            spread([one.peak_mb["collector and api"] for one in some], 0),
            "yes" if not any(one.troubles for one in some) else "NO",
        ]
        for connections, some in found.items()
    ]
    table = Table(
        "Clients that send again at once, batches of 20",
        [
            "connections",
            "requests a second",
            "taken a second",
            "requests / taken",
            "reply p50",
            "reply p95",
            "reply p99",
            "collector and api, peak MB",
            "exact",
        ],
        rows,
        "Minimum / median / maximum of the runs. Reply: milliseconds from a request that was taken until its 200. What "
        "is not taken is answered 503 with Retry-After. Sender, collector and all the rest share the cores.",
    )
    troubles = [
        f"overload, {n} connections: {text}" for n, some in found.items() for one in some for text in one.troubles
    ]
    return Part([table], {str(n): [one.for_json() for one in some] for n, some in found.items()}, troubles)


def _offered(one: Outcome) -> int:
    return one.sent.accepted_batches + sum(one.sent.refused.values())
