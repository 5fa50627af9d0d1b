"""How long a trace takes beside millions of stored events: ``python -m bench.trace --help``.

Runs a whole pipeline of its own in a temporary folder, has its engine make the events, and asks over HTTP. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.pipeline import BenchPipeline, bench_folder
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.registry.credentials import Credentials

_CHUNK = 250_000
_DAYS = 60
_BATCH_EVENTS = 20
_DUPLICATES = 50  # one in so many
_REJECTS = 100
_EVENT_BYTES = 300  # on disk, indices and projections included
_MIN_FREE_BYTES = 2 << 30

_MID = "concat('INTERACT:', lower(hex(sipHash128(number))))"
_AT = "toDateTime64({start:UInt32} + intDiv(number, 20) * {step:Float64}, 3, 'UTC')"
_NUMBERS = "FROM numbers({from:UInt64}, {count:UInt64})"
_STATEMENTS = (
    f"""
INSERT INTO learning_events (mid, mid_hash, eid, ver, ets, ets_original, received_at, sent_at, skew_ms, stored_at,
    channel, env, did, sid, actor_id, actor_type, pdata_id, pdata_pid, pdata_ver, object_id, object_type, object_ver,
    edata, edata_type, edata_id, edata_pageid, user, device, late, batch_id, event_index, content_hash, raw)
SELECT
    {_MID} AS id, xxh3(id), ['INTERACT', 'IMPRESSION', 'ASSESS', 'START', 'END'][number % 5 + 1] AS kind, '3.0',
    {_AT} AS at, toString(toUnixTimestamp64Milli(at)), at, at, 0, at,
    concat('channel-', toString(number % 7)) AS of, 'home',
    concat('device-', toString(intDiv(number, 20) % 20000)) AS phone,
    lower(hex(sipHash64(intDiv(number, 200)))) AS session,
    concat('user-', toString(intDiv(number, 20) % 20000)) AS who, 'User', 'prod.app', 'player', '4.1.2',
    concat('do_', toString(sipHash64(number) % 5000)) AS thing, 'Content', '1',
    concat('{{"type":"TOUCH","id":"button-', toString(number % 40), '","pageid":"page-', toString(number % 90), '"}}')
        AS data,
    'TOUCH', concat('button-', toString(number % 40)), concat('page-', toString(number % 90)),
    '{{"state":"Karnataka"}}', '{{}}', false, concat('batch-', toString(intDiv(number, 20))), number % 20, xxh3(data),
    concat('{{"eid":"', kind, '","ets":', toString(toUnixTimestamp64Milli(at)), ',"ver":"3.0","mid":"', id,
        '","actor":{{"id":"', who, '","type":"User"}},"context":{{"channel":"', of, '","env":"home","did":"', phone,
        '","sid":"', session, '","pdata":{{"id":"prod.app","pid":"player","ver":"4.1.2"}},"cdata":[]}},',
        '"object":{{"id":"', thing, '","type":"Content","ver":"1"}},"tags":[],"edata":', data, '}}')
{_NUMBERS}""",
    f"""
INSERT INTO batch_rows (batch_id, msgid, received_at, did, channel, credential, bytes, events, sequence, collector,
    topic, partition, offset, source)
SELECT concat('batch-', toString(intDiv(number, 20))), lower(hex(sipHash128(number))), {_AT},
    concat('device-', toString(intDiv(number, 20) % 20000)), 'c', 'bench', 4000, 20, number, 'k',
    'telemetry.raw', number % 4, number, 'http'
{_NUMBERS} WHERE number % 20 = 0""",
    f"""
INSERT INTO duplicate_rows (mid, eid, did, channel, batch_id, event_index, received_at, first_batch_id,
    first_event_index, first_received_at, differs, stored_at)
SELECT {_MID}, 'INTERACT', 'device-2', 'c', concat('batch-', toString(intDiv(number, 20) + 1)), 0, {_AT} + 1 AS at,
    concat('batch-', toString(intDiv(number, 20))), number % 20, {_AT}, false, at
{_NUMBERS} WHERE number % {_DUPLICATES} = 0""",
    f"""
INSERT INTO reject_rows (mid, eid, did, channel, batch_id, event_index, received_at, code, pointer, message, raw,
    scope, stored_at)
SELECT concat('refused-', toString(number)), 'INTERACT', 'device-2', 'c',
    concat('batch-', toString(intDiv(number, 20))), 0, {_AT} AS at, 'SCHEMA_VIOLATION', '/edata/type',
    '''type'' is a required property', repeat('x', 300), 'event', at
{_NUMBERS} WHERE number % {_REJECTS} = 0""",
)


def fill(clickhouse: ClickHouse, events: int, say: Callable[[str], None]) -> None:
    """Store ``events`` events over sixty days, 2% duplicates and 1% rejects beside them, made by the engine itself."""
    start_s = int(time.time()) - _DAYS * 24 * 3600
    step_s = _DAYS * 24 * 3600 / max(events // _BATCH_EVENTS, 1)
    for begin in range(0, events, _CHUNK):
        count = min(_CHUNK, events - begin)
        for statement in _STATEMENTS:
            clickhouse.rows(statement, {"start": start_s, "step": step_s, "from": begin, "count": count})
        say(f"{begin + count:,} events stored")


def sample(clickhouse: ClickHouse, events: int, traces: int) -> dict[str, Sequence[str]]:
    """Return mids by what became of them, drawn alike in every run."""
    choice = random.Random(1)

    def mids(numbers: list[int]) -> list[str]:
        sql = f"SELECT {_MID} FROM (SELECT arrayJoin({{numbers:Array(UInt64)}}) AS number)"  # noqa: S608  a constant
        return [row[0] for row in clickhouse.rows(sql, {"numbers": numbers})]

    return {
        "stored": mids([choice.randrange(events) for _ in range(traces)]),
        "duplicate": mids([choice.randrange(events // _DUPLICATES) * _DUPLICATES for _ in range(traces)]),
        "rejected": [f"refused-{choice.randrange(events // _REJECTS) * _REJECTS}" for _ in range(traces)],
        "unknown": [f"never-{number}" for number in range(traces)],
    }


def ask(url: str, token: str, kinds: dict[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Trace each mid by itself, then up to 1,000 at once; return times by kind."""
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False) as http:

        def timed(verdict: str, mid: str) -> float:
            began = time.perf_counter()
            reply = http.get(f"/v1/trace/{mid}")
            took_ms = (time.perf_counter() - began) * 1000
            found = reply.json()
            if (found["verdict"], found["complete"]) != (verdict, True):
                raise RuntimeError(f"{mid} should be {verdict}: {reply.text[:500]}")
            return took_ms

        def timed_many(mids: Sequence[str]) -> float:
            began = time.perf_counter()
            reply = http.post("/v1/trace", json={"mids": mids})
            took_ms = (time.perf_counter() - began) * 1000
            if len(reply.json()["traces"]) != len(mids):
                raise RuntimeError(reply.text[:500])
            return took_ms

        times: dict[str, dict[str, float]] = {}
        for kind, mids in kinds.items():
            verdict = "stored" if kind == "duplicate" else kind
            for mid in mids[:10]:  # each process makes its connections when it is first asked
                timed(verdict, mid)
            times[kind] = _spread([timed(verdict, mid) for mid in mids])
        many = [mid for mids in kinds.values() for mid in mids][:1000]
        return times | {f"POST of {len(many)}": _spread([timed_many(many) for _ in range(5)])}


def _spread(times_ms: list[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    return {
        "p50_ms": round(ordered[len(ordered) // 2], 1),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)], 1),
        "max_ms": round(ordered[-1], 1),
    }


def measure(pipeline: BenchPipeline, events: int, traces: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Fill, ask, and return what it took."""
    clickhouse = open_client(pipeline.settings)
    credentials = Credentials(pipeline.settings)
    try:
        began = time.monotonic()
        fill(clickhouse, events, say)
        filled_s = time.monotonic() - began
        say("asking")
        token = credentials.create("bench", role="operator").token
        times = ask(pipeline.settings.base_url, token, sample(clickhouse, events, traces))
        parts = "SELECT countIf(table = 'learning_events'), sum(bytes_on_disk) FROM system.parts WHERE active"
        ((event_parts, disk_bytes),) = clickhouse.rows(parts)
    finally:
        credentials.close()
        clickhouse.close()
    return {
        "events": events,
        "traces": traces,
        "filled_s": round(filled_s, 1),
        "parts_of_events": event_parts,
        "disk_bytes": disk_bytes,
        "times": times,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--traces", type=int, default=200, help="of each kind: stored, duplicate, rejected, unknown")
    parser.add_argument("--folder", type=Path, help="where the data is made; default: the system's temporary folder")
    args = parser.parse_args()
    if args.events < 1_000 or args.traces < 1:
        parser.error("at least 1,000 events and one trace")
    with tempfile.TemporaryDirectory(prefix="midstream-bench-", dir=args.folder) as folder:
        free, needed = shutil.disk_usage(folder).free, args.events * _EVENT_BYTES + _MIN_FREE_BYTES
        if free < needed:
            parser.exit(1, f"{free >> 20} MiB are free, {needed >> 20} MiB are needed\n")
        with bench_folder(Path(folder)) as held, BenchPipeline(held) as pipeline:
            result = measure(pipeline, args.events, args.traces, lambda line: print(line, file=sys.stderr))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
