"""Part ``peers``: the same events through pipelines as others would write them, from the same Kafka into the same
engine, beside ours."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.control import parse_us_per_event
from bench.load import Load, Outcome, Runner
from bench.mix import Batch, batches
from bench.options import Options
from bench.part_limits import make_topic, produce
from bench.pipeline import ROOT, BenchPipeline
from bench.processes import Watch
from bench.report import Part, Table, spread, times
from midstream.clickhouse.client import ClickHouse, open_client

PEERS = {"quixstreams": "bench.peers.quix", "bytewax": "bench.peers.wax"}
_EVENTS_TABLE, _REJECTS_TABLE = "peer_events", "peer_rejects"
_BATCH_EVENTS = 20
_MOST_EVENTS = 24_000  # at some 600 us of CPU each, three times
_START_TIMEOUT_S = 60.0
_WORK_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.25

_TABLES = (
    f"CREATE OR REPLACE TABLE {_EVENTS_TABLE} (mid String, eid LowCardinality(String), ets Int64, "
    "channel LowCardinality(String), env LowCardinality(String), did String, sid String, actor_id String, "
    "actor_type LowCardinality(String), pdata_id LowCardinality(String), object_id String, "
    "object_type LowCardinality(String), edata String, user String, device String) "
    "ENGINE = MergeTree ORDER BY (eid, ets)",
    f"CREATE OR REPLACE TABLE {_REJECTS_TABLE} (mid String, error String, raw String) ENGINE = MergeTree ORDER BY mid",
)


class PeerError(Exception):
    """A peer did not do its work; the message says why."""


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What one run of a peer took. CPU in microseconds an event."""

    peer_us: float
    engine_us: float
    broker_us: float
    control_us: float
    events_per_s: float
    stored: int
    rejected: int
    exact: bool


def run(options: Options) -> Part:
    """Run each peer and ours in turns. A peer that cannot be had is named with the reason."""
    events = min(options.events, _MOST_EVENTS) // _BATCH_EVENTS * _BATCH_EVENTS
    missing = {name: why for name, module in PEERS.items() if (why := why_missing(options.peers_python, module))}
    found: dict[str, list[PeerRun]] = {}
    ours: list[Outcome] = []
    troubles = []
    with BenchPipeline(options.folder) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        runner.run(Load(options.warm_up_events))
        clickhouse = open_client(pipeline.settings)
        try:
            for number in range(options.runs):
                mix = list(batches(200 + number, events, _BATCH_EVENTS, time.time_ns() // 1_000_000))
                for name in PEERS.keys() - missing.keys():
                    options.say(f"peers: {name}, run {number + 1} of {options.runs}")
                    try:
                        one = _run_peer(options, pipeline, clickhouse, PEERS[name], mix)
                    except PeerError as error:
                        missing[name] = str(error)
                        continue
                    found.setdefault(name, []).append(one)
                    if not one.exact:
                        troubles.append(f"peers: {name} stored {one.stored} and rejected {one.rejected}")
                options.say(f"peers: ours, run {number + 1} of {options.runs}")
                ours.append(runner.run(Load(events, _BATCH_EVENTS)))
        finally:
            clickhouse.close()
    troubles += [f"peers, ours: {trouble}" for one in ours for trouble in one.troubles]
    data = {
        "missing": missing,
        "ours": [one.for_json() for one in ours],
        "peers": {name: [asdict(one) for one in some] for name, some in found.items()},
    }
    return Part([_table(ours, found, missing)], data, troubles)


def why_missing(python: Path, module: str) -> str:
    """Return why a peer cannot be run, "" if it can: its environment lacks, or it has no wheels for this Python."""
    if not python.exists():
        return f"there is no {python}: make bench installs it"
    command = [str(python), "-c", f"import {module}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_START_TIMEOUT_S, check=False)  # noqa: S603
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def _run_peer(
    options: Options, pipeline: BenchPipeline, clickhouse: ClickHouse, module: str, mix: Sequence[Batch]
) -> PeerRun:
    """Fill a topic, let the peer empty it, and see that what it stored is right."""
    for statement in _TABLES:
        clickhouse.command(statement)
    topic = f"bench-{uuid.uuid4().hex}"
    servers = pipeline.settings.kafka_servers
    asyncio.run(make_topic(servers, topic))
    asyncio.run(produce(servers, topic, [batch.body for batch in mix]))
    fresh, invalid = sum(batch.fresh for batch in mix), sum(batch.invalid for batch in mix)
    events = sum(batch.events for batch in mix)
    control_us = parse_us_per_event()
    state = pipeline.home.root / f"peer-{topic}"
    job = {
        "kafka": servers,
        "topic": topic,
        "clickhouse_port": pipeline.settings.local_clickhouse_port,
        "state": str(state),
    }
    output = options.folder / "peer.out"
    with _started(options.peers_python, module, job, output) as peer, Watch(pipeline.home) as watch:
        process = psutil.Process(peer.pid)
        began, cpu_began = time.monotonic(), _cpu_s(process)
        stored = rejected = 0
        while stored < fresh or rejected < invalid:
            if peer.poll() is not None or time.monotonic() - began > _WORK_TIMEOUT_S:
                said = output.read_text("utf-8", errors="replace").strip()[-500:]
                raise PeerError(f"stored {stored} of {fresh}, rejected {rejected} of {invalid}, and no more: {said}")
            time.sleep(_POLL_S)
            stored, rejected = _count(clickhouse)
        took_s, used_s = time.monotonic() - began, _cpu_s(process) - cpu_began
    ((stored, distinct),) = clickhouse.rows(f"SELECT count(), uniqExact(mid) FROM {_EVENTS_TABLE}")  # noqa: S608
    return PeerRun(
        peer_us=used_s / events * 1e6,
        engine_us=watch.usage["engine"].cpu_s / events * 1e6,
        broker_us=watch.usage["broker"].cpu_s / events * 1e6,
        control_us=min(control_us, parse_us_per_event()),
        events_per_s=events / took_s,
        stored=stored,
        rejected=rejected,
        exact=(stored, distinct, rejected) == (fresh, fresh, invalid),
    )


@contextmanager
def _started(python: Path, module: str, job: dict[str, object], output: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a peer; when this yields, what it does is work on events."""
    command = [str(python), "-m", module]
    with (
        output.open("w") as errors,
        subprocess.Popen(  # noqa: S603  our own command
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdin is not None  # noqa: S101  as asked for above
            assert process.stdout is not None  # noqa: S101
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            if process.stdout.readline() != "ready\n":
                raise PeerError(output.read_text("utf-8", errors="replace").strip()[-500:] or "it said nothing")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _cpu_s(process: psutil.Process) -> float:
    times_ = process.cpu_times()
    return float(times_.user + times_.system)


def _count(clickhouse: ClickHouse) -> tuple[int, int]:
    ((stored, rejected),) = clickhouse.rows(
        f"SELECT (SELECT count() FROM {_EVENTS_TABLE}), (SELECT count() FROM {_REJECTS_TABLE})"  # noqa: S608  constants
    )
    return stored, rejected


def _table(ours: Sequence[Outcome], found: dict[str, list[PeerRun]], missing: dict[str, str]) -> Table:
    own = [one.cpu_us["validate"] + one.cpu_us["store"] for one in ours]
    base = statistics.median(own)
    rows = [
        [
            "ours: validate and store",
            spread(own),
            "1.00",
            spread([one.cpu_us["engine"] for one in ours]),
            spread([one.stored_per_s for one in ours], 0),
            spread([one.control_us for one in ours], 2),
            "yes" if not any(one.troubles for one in ours) else "NO",
        ]
    ]
    for name in PEERS:
        if name in missing:
            rows.append(
                [name, f"not measured: {missing[name]}".replace("|", "/").replace("\n", " "), "", "", "", "", ""]
            )
            continue
        some = found[name]
        rows.append(
            [
                name,
                spread([one.peer_us for one in some]),
                times(statistics.median(one.peer_us for one in some), base),
                spread([one.engine_us for one in some]),
                spread([one.events_per_s for one in some], 0),
                spread([one.control_us for one in some], 2),
                "yes" if all(one.exact for one in some) else "NO",
            ]
        )
    return Table(
        "Peers on the same events, CPU in microseconds an event, batches of 20",
        ["", "workers", "times ours", "engine", "events a second", "control", "exact"],
        rows,
        "Each reads the same batches from Kafka, checks every event with jsonschema by its eid, dedupes by mid, looks "
        "up user and device, and inserts JSON lines a few thousand at once into a plain table of 15 columns, in one "
        "process. Ours is sent over HTTP, stores 40 columns with their original text, and survives being killed.",
    )
