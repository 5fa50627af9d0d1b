"""One load on a running pipeline: sent, waited for, counted, and what it cost."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np

from bench.control import parse_us_per_event
from bench.pipeline import ROOT, BenchError, BenchPipeline
from bench.processes import OURS, Watch
from bench.sender import Plan, Sent
from midstream.backup.tables import EVENT_TABLES
from midstream.clickhouse.client import ClickHouse, open_client

_READY_TIMEOUT_S = 120.0
_SETTLE_S = 120.0
_QUERY_TIMEOUT_MS = 120_000  # of millions of events
_SETTLE_POLL_S = 0.5
BLOCK_LOG_S = 2.0
"""Within this time what was stored is in the log of blocks, which is written once a second."""
_QUANTILES = (0.5, 0.95, 0.99)

_COUNTS = {
    what: f"SELECT count() FROM {view} WHERE received_at >= fromUnixTimestamp64Milli({{since:Int64}})"  # noqa: S608  constants
    for what, view in (("stored", "events"), ("duplicate", "duplicates"), ("rejected", "rejects"))
}
"""Of what was received since a load began: `events` has one row a mid, the others one an arrival."""

_ARRIVED = _COUNTS | {
    "stored": f"SELECT count() FROM merge('^({'|'.join(EVENT_TABLES)})$') "  # noqa: S608  constants
    "WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})"
}
"""The same, as it is asked while the load lasts: the view would cost the engine three times as much."""

_VISIBLE = """
SELECT batch_id, toUnixTimestamp64Milli(max(visible_at)), count()
FROM (SELECT batch_id, stored_at, mid_hash FROM events
    WHERE received_at >= fromUnixTimestamp64Milli({since:Int64})) AS e
INNER JOIN (SELECT partition, partitions, stored_at, max(visible_at) AS visible_at FROM block_rows
    WHERE stored_at >= fromUnixTimestamp64Milli({since:Int64}) GROUP BY partition, partitions, stored_at) AS b
    ON e.stored_at = b.stored_at
WHERE e.mid_hash % b.partitions = b.partition
GROUP BY batch_id"""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent."""

    events: int
    batch_events: int = 20
    gzip: bool = False
    rate_events_s: float = 0.0
    connections: int = 16
    retry_s: float = 0.5
    stored: tuple[str, ...] = ()
    """Texts of stored events, of which what is resent is taken."""

    @property
    def name(self) -> str:
        """How the report names it."""
        return f"{self.batch_events}, {'gzip' if self.gzip else 'plain'}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a load, and what it cost. CPU in microseconds an event."""

    events: int
    sent: Sent
    accepted_per_s: float
    stored_per_s: float
    cpu_us: dict[str, float]
    sender_us: float
    control_us: float
    visible_ms: dict[str, float]
    reply_ms: dict[str, float]
    peak_mb: dict[str, float]
    visible_p95_ms_by_fifth: list[float]
    """Of what was accepted in each fifth of the time: a lag that grows shows here."""
    rss_mb_by_fifth: dict[str, list[float]]
    """Median memory in each fifth of the time."""
    counts: dict[str, int]
    expected: dict[str, int]
    troubles: list[str] = field(default_factory=list)
    """Why the counts are not exact, or the figures not to be believed; empty when all is well."""

    @property
    def ours_us(self) -> float:
        """CPU of Midstream's own processes."""
        return sum(self.cpu_us.get(kind, 0.0) for kind in OURS)

    @property
    def all_us(self) -> float:
        """CPU of everything, engine and broker included."""
        return sum(self.cpu_us.values())

    def for_json(self) -> dict[str, object]:
        """Return all of it but each single reply."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        plain["sent"] = {k: v for k, v in msgspec.to_builtins(self.sent).items() if k not in ("replies", "reply_ms")}
        return plain


class Runner:
    """Runs loads on one pipeline, each with mids of its own."""

    _next_seed = 1

    def __init__(self, pipeline: BenchPipeline) -> None:
        self._pipeline = pipeline

    def run(self, load: Load) -> Outcome:
        """Send, wait until all is in ClickHouse, and return what it took.

        Raises:
            BenchError: the sender ended without a report.
        """
        control_before = parse_us_per_event()
        clickhouse = open_client(self._pipeline.settings, timeout_ms=_QUERY_TIMEOUT_MS)
        try:
            with self._sender(load) as sender, Watch(self._pipeline.home) as watch:
                since_ms = time.time_ns() // 1_000_000
                sent = _let_send(sender)
                expected = expected_of(sent)
                settle(clickhouse, since_ms, expected)
            time.sleep(BLOCK_LOG_S)
            counts = counts_since(clickhouse, since_ms)
            visible = clickhouse.rows(_VISIBLE, {"since": since_ms})
        finally:
            clickhouse.close()
        control_us = min(control_before, parse_us_per_event())
        last_ms = max((at for _, at, _ in visible), default=since_ms)
        # Moment of the reply, milliseconds from there until visible, events.
        waits = [
            (sent.replies[batch_id], at - sent.replies[batch_id], rows)
            for batch_id, at, rows in visible
            if batch_id in sent.replies
        ]
        events = sent.accepted_events
        return Outcome(
            events=events,
            sent=sent,
            accepted_per_s=events / sent.sending_s,
            stored_per_s=events / max((last_ms - since_ms) / 1000, 1e-3),
            cpu_us={kind: used.cpu_s / events * 1e6 for kind, used in watch.usage.items()},
            sender_us=sent.cpu_s / events * 1e6,
            control_us=control_us,
            visible_ms=_weighted_quantiles([wait for _, wait, _ in waits], [rows for _, _, rows in waits]),
            reply_ms=_weighted_quantiles(sent.reply_ms, [1] * len(sent.reply_ms)),
            peak_mb={kind: max(used.rss_bytes) / 1e6 for kind, used in watch.usage.items()},
            visible_p95_ms_by_fifth=[
                _weighted_quantiles([wait for _, wait, _ in part], [rows for _, _, rows in part])["p95"]
                for part in _fifths(sorted(waits))
            ],
            rss_mb_by_fifth={
                kind: [statistics.median(part) / 1e6 for part in _fifths(used.rss_bytes)]
                for kind, used in watch.usage.items()
            },
            counts=counts,
            expected=expected,
            troubles=judge(sent, expected, counts, sum(rows for _, _, rows in visible), watch.ended),
        )

    def send(self, load: Load) -> tuple[int, Sent]:
        """Send, and wait for nothing but the replies; return when it began (epoch milliseconds) and the ledger.

        Raises:
            BenchError: the sender ended without a report.
        """
        with self._sender(load) as sender:
            since_ms = time.time_ns() // 1_000_000
            return since_ms, _let_send(sender)

    @contextmanager
    def sending(self, load: Load) -> Iterator[None]:
        """Send in the background as long as the context lasts, or the load; what becomes of it is not looked at."""
        with self._sender(load) as sender:
            _say_go(sender)
            yield

    @contextmanager
    def _sender(self, load: Load) -> Iterator[subprocess.Popen[str]]:
        seed = Runner._next_seed
        Runner._next_seed += 1
        plan = Plan(
            port=self._pipeline.settings.port,
            token=self._pipeline.app_token,
            seed=seed,
            events=load.events,
            batch_events=load.batch_events,
            gzip=load.gzip,
            rate_events_s=load.rate_events_s,
            connections=load.connections,
            retry_s=load.retry_s,
            stored=list(load.stored),
        )
        with subprocess.Popen(
            [sys.executable, "-m", "bench.sender"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdin is not None  # noqa: S101  as asked for above
                assert process.stdout is not None  # noqa: S101
                process.stdin.write(msgspec.json.encode(plan).decode() + "\n")
                process.stdin.flush()
                if process.stdout.readline() != "ready\n":
                    raise BenchError("the sender does not come up")
                yield process
            finally:
                process.terminate()


def _say_go(sender: subprocess.Popen[str]) -> None:
    assert sender.stdin is not None  # noqa: S101  as _sender made it
    sender.stdin.write("go\n")
    sender.stdin.flush()


def _let_send(sender: subprocess.Popen[str]) -> Sent:
    assert sender.stdout is not None  # noqa: S101  as _sender made it
    _say_go(sender)
    line = sender.stdout.readline()
    if not line:
        raise BenchError("the sender ended without a report")
    try:
        return msgspec.json.decode(line, type=Sent)
    except msgspec.DecodeError as error:
        raise BenchError(f"the sender's report of {len(line)} characters cannot be read: {error}") from error


def judge(
    sent: Sent, expected: Mapping[str, int], counts: Mapping[str, int], timed_events: int, ended: list[str]
) -> list[str]:
    """Return what is wrong with the counts of a load, by the sender's ledger; nothing when they are exact.

    Events that may have been taken twice, for want of an answer, may be duplicates or rejects more; what is stored
    is exact whatever happened.
    """
    troubles = [f"{kind} ended during the load" for kind in ended]
    slack = {"stored": 0, "duplicate": sent.repeated_events, "rejected": sent.repeated_events}
    if sent.without_retry_after:
        troubles.append(f"{sent.without_retry_after} answers 503 without Retry-After")
    for kind, wanted in expected.items():
        if not wanted <= counts[kind] <= wanted + slack[kind]:
            troubles.append(f"{kind}: {counts[kind]} instead of {wanted}")
    if timed_events != counts["stored"]:
        troubles.append(f"the time until visible is known of {timed_events} events of {counts['stored']}")
    return troubles


def expected_of(sent: Sent) -> dict[str, int]:
    """Return the counts that ClickHouse has to hold of a load, by the sender's ledger."""
    return {"stored": sent.fresh, "duplicate": sent.resent, "rejected": sent.invalid}


def counts_since(clickhouse: ClickHouse, since_ms: int) -> dict[str, int]:
    """Return what ClickHouse holds of what was received since a moment (epoch milliseconds): ``stored`` and so on."""
    return {what: _count(clickhouse, sql, since_ms) for what, sql in _COUNTS.items()}


def _count(clickhouse: ClickHouse, sql: str, since_ms: int) -> int:
    return int(clickhouse.rows(sql, {"since": since_ms})[0][0])


def settle(clickhouse: ClickHouse, since_ms: int, expected: Mapping[str, int], timeout_s: float = _SETTLE_S) -> None:
    """Wait until the counts are as expected, or the time is over; they are judged afterwards.

    The engine's time goes to its account, so it is asked for one count at a time, the cheapest first.
    """
    deadline = time.monotonic() + timeout_s
    missing = [kind for kind in _COUNTS if expected[kind]]
    while missing and time.monotonic() < deadline:
        if _count(clickhouse, _ARRIVED[missing[0]], since_ms) >= expected[missing[0]]:
            del missing[0]
        else:
            time.sleep(_SETTLE_POLL_S)


_T = TypeVar("_T")


def _fifths(values: Sequence[_T]) -> list[Sequence[_T]]:
    """Cut values into five neighbouring parts, leaving out empty ones."""
    edges = [len(values) * part // 5 for part in range(6)]
    return [values[begin:end] for begin, end in itertools.pairwise(edges) if end > begin]


def _weighted_quantiles(values: list[float], weights: list[int]) -> dict[str, float]:
    """Return p50, p95 and p99: the least value at or below which so large a share of the weight lies."""
    if not values:
        return {f"p{q * 100:g}": float("nan") for q in _QUANTILES}
    order = np.argsort(values)
    reached = np.cumsum(np.asarray(weights)[order])
    places = [int(np.searchsorted(reached, q * reached[-1])) for q in _QUANTILES]
    return {
        f"p{q * 100:g}": float(np.asarray(values)[order[place]]) for q, place in zip(_QUANTILES, places, strict=True)
    }
