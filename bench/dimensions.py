"""What dimensions cost: a bulk load, and correcting stored events beside a load: ``python -m bench.dimensions --help``.

Starts a pipeline of its own. Users are loaded over the API; the engine makes events with copies of them, half of them
of a few users; these get new attributes and a sync, without and with events posted beside it, while somebody looks all
the time whether an object's events agree. ``--alternatives`` compares ways to correct on an engine alone. Prints JSON;
exit code 1: a count was wrong, or a look.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.control import parse_us_per_event
from bench.copies import Watcher
from bench.corrections import compare
from bench.load import Load, Outcome, Runner
from bench.mix import PEOPLE
from bench.pipeline import BenchError, BenchPipeline, bench_folder
from bench.processes import Watch
from bench.proof import unproven
from bench.stored import let_merge
from bench.users import NEW, OLD, QUERY, changed_ids, fill, lines, patches
from midstream.clickhouse.client import ClickHouse, open_client

_POLL_S = 0.25
_LIMIT_S = 600.0
_QUERY_TIMEOUT_MS = 300_000
_BLOCK_BYTES = 1 << 18
_LEAD_S = 5.0
"""Of the load before the push: by then it is stored at its rate."""
_WARM_S = 15.0
_QUERIES = 3

_TOTALS = f"""
SELECT count(), count() - uniqExact(sipHash128(mid)),
    countIf(is_changed AND position(user, '"{NEW} ') = 0), countIf(NOT is_changed AND position(user, '"{NEW} ') > 0)
FROM (SELECT mid, user, actor_type = 'User' AND actor_id IN {{ids:Array(String)}} AS is_changed FROM events)
"""  # noqa: S608  constants


class Operator:
    """Asks the pipeline's API, as an operator."""

    def __init__(self, pipeline: BenchPipeline) -> None:
        self._log = pipeline.home.logs / "jobs.log"  # removed with the pipeline
        self._port = pipeline.settings.port
        self._headers = {"Authorization": f"Bearer {pipeline.operator_token()}"}
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port}", headers=self._headers, timeout=60, trust_env=False
        )

    def post_users(self, path: Path) -> int:
        """Post a file of users; return how many were accepted.

        Raises:
            BenchError: not all were.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_LIMIT_S, blocksize=_BLOCK_BYTES)
        try:
            with path.open("rb") as file:
                headers = {**self._headers, "Content-Length": str(path.stat().st_size)}
                connection.request("POST", "/v1/dimensions/user", file, headers)
                reply = connection.getresponse()
                answer = json.loads(reply.read())
        finally:
            connection.close()
        if reply.status != 200 or answer["refused"]:
            raise BenchError(f"users were not taken: {reply.status} {str(answer)[:500]}")
        return int(answer["accepted"])

    def sync(self, ids: Sequence[str]) -> dict[str, Any]:
        """Ask for a sync of users and wait until it is done; return its end, and how long each phase took.

        Raises:
            BenchError: it was not taken, it failed, or it is not done in time.
        """
        began = at = time.monotonic()
        asked = {"request": {"objectType": "user", "objectIds": list(ids)}}
        reply = self._http.post("/api/data/v1/index/sync", json=asked)
        if reply.status_code != 200:
            raise BenchError(f"the sync was not taken: {reply.status_code} {reply.text[:500]}")
        job_id = reply.json()["result"]["node_id"]
        phases: dict[str, float] = {}
        before = "queued"
        while True:
            job = self._http.get(f"/v1/sync/{job_id}").json()
            now = time.monotonic()
            phase = job["phase"] or job["status"]
            if phase != before or job["ended_at"]:
                phases[before] = round(phases.get(before, 0.0) + now - at, 1)
                before, at = phase, now
            if job["status"] == "done":
                return {"seconds": round(now - began, 1), "phases_s": phases, "changed": job["changed"]}
            if job["ended_at"] or now > began + _LIMIT_S:
                raise BenchError(f"the sync is not done: {job}\n{self._log.read_text('utf-8')[-4_000:]}")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def load_users(pipeline: BenchPipeline, operator: Operator, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Load users over the API; return what it took, from the first byte to Kafka and to ClickHouse."""
    paths = [folder / f"users-{number}.jsonl" for number in range(args.requests)]
    for path, part in zip(paths, parts(args.users, args.requests), strict=True):
        with gzip.open(path, "wb", 6) if args.gzip else path.open("wb") as file:
            file.writelines(lines(part, OLD))
    sent_bytes = sum(path.stat().st_size for path in paths)
    clickhouse = open_client(pipeline.settings, timeout_ms=_QUERY_TIMEOUT_MS)
    try:
        with Watch(pipeline.home) as watch:
            began, own_cpu_s = time.monotonic(), time.process_time()
            with ThreadPoolExecutor(args.side_by_side) as pool:
                accepted = sum(pool.map(operator.post_users, paths))
            posted_s = time.monotonic() - began
            _until("ClickHouse has the users", lambda: _count_users(clickhouse, "dimension_rows") >= args.users)
            stored = _count_users(clickhouse, "dimensions")
            stored_s = time.monotonic() - began
            own_cpu_s = time.process_time() - own_cpu_s
        wrong = [f"{stored:,} users are there instead of {args.users:,}"] if stored != args.users else []
        wrong += [f"{accepted:,} users were accepted instead of {args.users:,}"] if accepted != args.users else []
        wrong += [f"{kind} ended during the load" for kind in watch.ended]
    finally:
        clickhouse.close()
        for path in paths:
            path.unlink()
    return {
        "users": args.users,
        "sent_mb": round(sent_bytes / 1e6, 1),
        "until_kafka_has_all_s": round(posted_s, 1),
        "until_clickhouse_has_all_s": round(stored_s, 1),
        "users_per_s": round(args.users / stored_s),
        "cpu_s": {kind: round(used.cpu_s, 1) for kind, used in watch.usage.items()} | {"client": round(own_cpu_s, 1)},
        "peak_mb": {kind: round(max(used.rss_bytes) / 1e6) for kind, used in watch.usage.items()},
        "wrong": wrong,
    }


def parts(count: int, of: int) -> list[range]:
    """Return numbers from 0 to before ``count`` in so many neighbouring parts."""
    return [range(count * part // of, count * (part + 1) // of) for part in range(of)]


def correct(pipeline: BenchPipeline, operator: Operator, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Correct the events of some users beside a load; return what it took, and what was wrong."""
    ids = changed_ids(args.changed)
    clickhouse = open_client(pipeline.settings, timeout_ms=_QUERY_TIMEOUT_MS)
    try:
        fill(clickhouse, args.events, args.changed)
        let_merge(clickhouse)
        since = datetime.now(UTC)
        runner = Runner(pipeline)
        load = Load(int(args.rate * args.seconds) // 20 * 20, rate_events_s=args.rate)
        warmed = runner.run(Load(int(args.rate * _WARM_S) // 20 * 20, rate_events_s=args.rate))
        alone = runner.run(load)
        result: dict[str, Any] = {"events": args.events, "users": args.changed, "alone": _told(alone)}
        result["query_before_s"] = _query_s(clickhouse)
        before = _count_events(clickhouse)
        path = folder / "changed.jsonl"
        path.write_bytes(b"".join(lines(range(args.changed), NEW)))
        with ThreadPoolExecutor(1) as pool, Watcher(pipeline.settings, _spread(ids, args.watched)) as watcher:
            running = pool.submit(runner.run, load)
            _until("the load is stored", lambda: _count_events(clickhouse) > before)
            time.sleep(_LEAD_S)
            operator.post_users(path)
            asked_at = time.monotonic()
            result["sync"] = operator.sync(ids)
            looks = sum(at > asked_at for at in watcher.looked_at)
            result["the load went on after the sync"] = not running.done()
            result["query_right_after_s"], result["patches_then"] = _query_s(clickhouse), patches(clickhouse)
            beside = running.result()
        result["beside"] = _told(beside)
        result["looks"] = {
            "looks": watcher.judge.looks,
            "during the sync": looks,
            "objects": args.watched,
            "both copies before the correction": watcher.judge.both_before,
            "wrong": watcher.judge.wrong,
            "median_ms": round(sorted(watcher.look_ms)[len(watcher.look_ms) // 2], 1),
        }
        result["correction_seconds"] = _correction_s(pipeline)
        let_merge(clickhouse)
        result["query_later_s"], result["patches_later"] = _query_s(clickhouse), patches(clickhouse)
        fresh = sum(outcome.sent.fresh for outcome in (warmed, alone, beside))
        result["wrong"] = [
            *watcher.troubles(),
            *(trouble for outcome in (warmed, alone, beside) for trouble in outcome.troubles),
            *_wrong_totals(clickhouse, ids, args.events + fresh),
            *unproven(pipeline, since),
        ]
        if result["sync"]["changed"].get("events", 0) < args.events // 2:
            result["wrong"].append("fewer events changed than there were with the old copy")
    finally:
        clickhouse.close()
    return result


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "events": outcome.events,
        "stored_per_s": round(outcome.stored_per_s),
        "reply_ms": {name: round(ms, 1) for name, ms in outcome.reply_ms.items()},
        "visible_ms": {name: round(ms) for name, ms in outcome.visible_ms.items()},
        "visible_p95_ms_by_fifth": [round(ms) for ms in outcome.visible_p95_ms_by_fifth],
        "cpu_us_an_event": {kind: round(us) for kind, us in outcome.cpu_us.items()},
        "peak_mb": {kind: round(mb) for kind, mb in outcome.peak_mb.items()},
        "control_us": round(outcome.control_us, 2),
    }


def _spread(ids: Sequence[str], count: int) -> list[str]:
    return [ids[part.start] for part in parts(len(ids), count)]


def _count_users(clickhouse: ClickHouse, table: str) -> int:
    return int(clickhouse.rows(f"SELECT count() FROM {table} WHERE type = 'user'")[0][0])  # noqa: S608  constants


def _count_events(clickhouse: ClickHouse) -> int:
    return int(clickhouse.rows("SELECT count() FROM events")[0][0])


def _query_s(clickhouse: ClickHouse) -> float:
    """Return the least of some times that the query takes which is measured."""
    took = []
    for _ in range(_QUERIES):
        began = time.monotonic()
        clickhouse.rows(QUERY)
        took.append(time.monotonic() - began)
    return round(min(took), 2)


def _correction_s(pipeline: BenchPipeline) -> float:
    """Return what the jobs' process says of the time that corrections took."""
    url = f"http://127.0.0.1:{pipeline.settings.jobs_metrics_port}/metrics"
    for family in text_string_to_metric_families(httpx.get(url, trust_env=False).text):
        for sample in family.samples:
            if sample.name == "midstream_correction_seconds_sum":
                return round(sample.value, 1)
    raise BenchError("jobs does not tell how long corrections took")


def _wrong_totals(clickhouse: ClickHouse, ids: Sequence[str], events: int) -> list[str]:
    ((count, doubled, old, others),) = clickhouse.rows(_TOTALS, {"ids": list(ids)})
    found = {
        f"{count:,} events are there instead of {events:,}": count != events,
        f"{doubled:,} events of a mid that another has": doubled,
        f"{old:,} events of the changed users without the new copy": old,
        f"{others:,} events of other users with a new copy": others,
    }
    return [text for text, is_so in found.items() if is_so]


def _until(what: str, done: Callable[[], bool]) -> None:
    end = time.monotonic() + _LIMIT_S
    while not done():
        if time.monotonic() > end:
            raise BenchError(f"not within {_LIMIT_S:.0f} s: {what}")
        time.sleep(_POLL_S)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--users", type=int, default=1_000_000, help=f"that are loaded; at least {PEOPLE:,}")
    parser.add_argument("--requests", type=int, default=4, help="by which users are loaded")
    parser.add_argument("--side-by-side", type=int, default=2, help="of these requests")
    parser.add_argument("--gzip", action="store_true", help="bodies are gzipped")
    parser.add_argument("--events", type=int, default=2_000_000, help="stored; half of them of the changed users")
    parser.add_argument("--changed", type=int, default=1_000, help="users that change")
    parser.add_argument("--watched", type=int, default=10, help="of these users, that are looked at all the time")
    parser.add_argument("--rate", type=float, default=2_000.0, help="events a second of the load beside")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the load, without and with a sync beside it")
    parser.add_argument("--alternatives", action="store_true", help="compare ways to correct, and nothing else")
    args = parser.parse_args()
    if args.users < PEOPLE or not args.watched <= args.changed < PEOPLE:
        parser.error(f"at least {PEOPLE:,} users, of which fewer than {PEOPLE:,} change, and no more are watched")
    result: dict[str, Any] = {"control_us": round(parse_us_per_event(), 2)}
    if args.alternatives:
        result["alternatives"] = compare(args.users, args.events, (10, args.changed))
    else:
        with (
            tempfile.TemporaryDirectory(prefix="midstream-bench-") as folder,
            bench_folder(Path(folder)) as held,
            BenchPipeline(held, partitions=2) as pipeline,
        ):
            operator = Operator(pipeline)
            result["bulk load"] = load_users(pipeline, operator, held, args)
            if args.events:
                result["correction"] = correct(pipeline, operator, held, args)
            operator.close()
    result["control_us_after"] = round(parse_us_per_event(), 2)
    print(json.dumps(result, indent=1))
    return int(any(part.get("wrong") for part in result.values() if isinstance(part, dict)))


if __name__ == "__main__":
    sys.exit(main())
