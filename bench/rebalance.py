"""Part ``rebalance`` of :mod:`bench.scaling`: workers come, leave and die beside a steady load."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.far_engine import FarEngine
from bench.flow import Pause, longest_gap, pause, stored_moments
from bench.load import Load, Runner, counts_since, expected_of, judge, settle
from bench.pipeline import BenchError, BenchPipeline
from bench.proof import incomplete, unproven
from bench.report import Part, Table
from midstream.clickhouse.client import ClickHouse, open_client

_SEAL_MS = 1_500
"""Longer than the default: few enough inserts that a single worker keeps up beside a slow engine."""
_WARM_UP_EVENTS = 2_000
_STEADY_S = 6.0
_MORE_S = 10.0
"""Of the load after the last change was looked at: it began before the first."""
_FLOW_S = 60.0
_POLL_S = 0.5
_DRAIN_S = 180.0
_QUERY_TIMEOUT_MS = 120_000


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the workers."""

    name: str
    at_ms: int
    usual_ms: int
    """The longest time in which a partition got nothing before the first change."""
    pause: Pause


@dataclass(frozen=True, slots=True)
class _Done:
    name: str
    at_ms: int


class _Crew:
    """The workers of one run: ``a`` and ``b`` at the beginning."""

    def __init__(self, far: FarEngine, named: bool) -> None:
        self._far = far
        self._named = named

    def start(self, name: str) -> None:
        """Start one, under its name if they have names."""
        self._far.start(name, f"bench-{name}" if self._named else "")

    def changes(self) -> Sequence[tuple[str, Callable[[], None]]]:
        """Return what is done one after the other; two workers are there before, one after."""
        return [
            ("a third joins", lambda: self.start("c")),
            ("one leaves (SIGTERM)", lambda: self._far.end("c", signal.SIGTERM)),
            ("one is killed, and started anew at once", self._start_anew),
            ("one is killed (kill -9)", lambda: self._far.end("b", signal.SIGKILL)),
        ]

    def _start_anew(self) -> None:
        self._far.end("b", signal.SIGKILL)
        self.start("b")


def run(folder: Path, arguments: argparse.Namespace) -> Part:
    """Measure without and with names."""
    found: dict[str, list[Change]] = {}
    troubles: list[str] = []
    for title, named in (("without a name", False), ("named", True)):
        found[title], wrong = _measure(folder, arguments, named)
        troubles += [f"{title}: {trouble}" for trouble in wrong]
    data = {title: [asdict(change) for change in some] for title, some in found.items()}
    return Part([table(found, arguments)], data, troubles)


def _measure(folder: Path, arguments: argparse.Namespace, named: bool) -> tuple[list[Change], list[str]]:
    with (
        BenchPipeline(folder, partitions=arguments.partitions, seal_interval_ms=_SEAL_MS) as pipeline,
        ThreadPoolExecutor(1) as pool,
    ):
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        runner.run(Load(_WARM_UP_EVENTS))
        clickhouse = open_client(pipeline.settings, timeout_ms=_QUERY_TIMEOUT_MS)
        try:
            with FarEngine(pipeline, arguments.steady_insert_ms / 1000, arguments.bytes_per_s) as far:
                crew = _Crew(far, named)
                for name in ("a", "b"):
                    crew.start(name)
                far.wait(2)
                done: list[_Done] = []
                since = datetime.now(UTC)
                changes = crew.changes()
                seconds = _STEADY_S + len(changes) * arguments.window_s + _MORE_S
                sending = pool.submit(
                    runner.send, Load(int(arguments.rate * seconds) // 20 * 20, rate_events_s=arguments.rate)
                )
                began_ms = _now_ms()
                _wait_flowing(clickhouse, began_ms, arguments.partitions)
                first_ms = _now_ms()
                time.sleep(_STEADY_S)
                for name, change in changes:
                    print(name, file=sys.stderr)
                    done.append(_Done(name, _now_ms()))
                    change()
                    time.sleep(max(arguments.window_s - (_now_ms() - done[-1].at_ms) / 1000, 0))
                over_ms = _now_ms()
                since_ms, sent = sending.result()
                sent_ms = _now_ms()
                expected = expected_of(sent)
                settle(clickhouse, since_ms, expected, _DRAIN_S)
                counts = counts_since(clickhouse, since_ms)
                troubles = judge(sent, expected, counts, counts["stored"], far.ended)
                troubles += incomplete(clickhouse, sent_ms) + unproven(pipeline, since)
                moments = stored_moments(clickhouse, since_ms, arguments.partitions)
        finally:
            clickhouse.close()
    usual_ms = longest_gap(moments, first_ms, done[0].at_ms)
    ends = [change.at_ms for change in done[1:]] + [over_ms]
    found = [
        Change(change.name, change.at_ms, usual_ms, pause(moments, usual_ms, change.at_ms, end_ms))
        for change, end_ms in zip(done, ends, strict=True)
    ]
    return found, troubles


def _wait_flowing(clickhouse: ClickHouse, began_ms: int, partitions: int) -> None:
    """Wait until every partition has got something."""
    deadline = time.monotonic() + _FLOW_S
    while not all(stored_moments(clickhouse, began_ms, partitions).values()):
        if time.monotonic() > deadline:
            raise BenchError(f"not every partition flows within {_FLOW_S:.0f} s")
        time.sleep(_POLL_S)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def table(found: Mapping[str, Sequence[Change]], arguments: argparse.Namespace) -> Table:
    """Return a row for each change, with what it did without and with names."""
    names = [change.name for change in next(iter(found.values()))]
    rows = []
    for number, name in enumerate(names):
        row = [name]
        for some in found.values():
            one = some[number].pause
            row += [
                f"{one.longest_ms / 1000:.1f}",
                f"{one.all_flow_ms / 1000:.1f}" if one.paused else "",
                f"{one.paused}",
            ]
        rows.append(row)
    usual = ", ".join(f"{some[0].usual_ms / 1000:.1f} s {title}" for title, some in found.items())
    return Table(
        f"Workers come and go beside {arguments.rate:,.0f} events a second over {arguments.partitions} partitions",
        [
            "change",
            *(f"{what}, {title}" for title in found for what in ("longest s", "all flow after s", "partitions")),
        ],
        rows,
        f"Longest: the longest time in which a partition got nothing (by stored_at of its events); usually {usual}. "
        "All flow: from the change until no partition stood still for more than twice as long. Partitions: how many "
        "did.",
    )
