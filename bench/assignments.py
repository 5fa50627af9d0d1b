"""What writing and reading learners' records costs: ``python -m bench.assignments --help``.

First an engine of its own is filled with records, and single ones are read as the api does. Then a pipeline of its own
takes writes at a steady rate from simulated learners, whose runners send telemetry that grows, and other clients read
single records meanwhile; each record is compared with what was sent last. Prints JSON; exit code 1: a record was wrong,
or a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from bench.control import parse_us_per_event
from bench.engine import temporary_engine
from bench.pipeline import BenchPipeline, bench_folder
from bench.processes import Watch
from bench.stored import let_merge
from midstream.assignments.record import fold
from midstream.assignments.rows import RecordKey
from midstream.assignments.stored import RecordReader, count_records, read_page, read_report
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.registry.academies.academies import Academies
from midstream.registry.academies.bulk import USERS, import_rows
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.users import Users
from midstream.registry.engine import open_engine
from midstream.settings import Settings
from midstream.simulate.learner import Exercise, ExerciseStep, Learner

_ASSETS = 1_000
_ACADEMIES = 10
_CHUNK = 100_000
_FILL = f"""INSERT INTO assignment_rows (academy_id, asset_slug, user_id, version, id, author, written_at, created_at,
given, computed, telemetry, engagement_score, completion_rate, steps, writer, batch)
SELECT 1 + number % {_ACADEMIES}, concat('asset-', toString(intDiv(number, {_ACADEMIES}) % {_ASSETS})),
intDiv(number, {_ACADEMIES * _ASSETS}), {{version:Int64}}, number, 1, now64(6), now64(6), 13, 16,
concat('{{"steps":[', repeat(toString(cityHash64(number, {{version:Int64}})), 100), ']}}'), 5, 7,
'[{{"slug":"s1","position":1,"opened":true,"completed":false}}]', 'w', 1
FROM numbers({{from:UInt64}}, {{count:UInt64}})"""  # noqa: S608 - constants
_WRITES = 2  # of each record, each with 2 KB of telemetry
_EXERCISE = Exercise("bench", tuple(ExerciseStep(f"step-{number}", 0.6) for number in range(8)))
_CONNECTIONS = 200
_MAX_WAITING = 500  # writes that wait for their reply
_READ_AT_ONCE = 20
_READ_EVERY_S = 0.5
_COMPARED = 1_000
_BEGAN_MS = 1_750_000_000_000
_TIMEOUT = aiohttp.ClientTimeout(total=60)


def percentiles(times_ms: list[float]) -> dict[str, float]:
    """Return what of these times is told."""
    ordered = sorted(times_ms)
    if not ordered:
        return {}
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 1) for name, part in at.items()}


def read_stored(records: int, reads: int) -> dict[str, Any]:
    """Return how long reads take beside so many records, as the only one who asks."""
    choice = random.Random(1)
    with temporary_engine() as engine:
        for version in range(1, _WRITES + 1):
            for begin in range(0, records, _CHUNK):
                count = min(_CHUNK, records - begin)
                engine.clickhouse.rows(_FILL, {"version": version, "from": begin, "count": count})
        let_merge(engine.clickhouse)
        client = open_client(engine.settings, max_threads=1)
        reader = RecordReader(client.rows)

        def some() -> RecordKey:
            number = choice.randrange(records)
            asset = f"asset-{number // _ACADEMIES % _ASSETS}"
            return RecordKey(1 + number % _ACADEMIES, asset, number // (_ACADEMIES * _ASSETS))

        def one() -> None:
            key = some()
            if fold(reader.read([key])[key]).values["completion_rate"] is None:
                raise RuntimeError(f"{key} is not there")

        kinds: dict[str, Callable[[], object]] = {
            "the client's own time (SELECT 1)": lambda: client.rows("SELECT 1"),
            "one record": one,
            "20 records together": lambda: reader.read({some() for _ in range(20)}),
            "a page of 100": lambda: read_page(
                client.rows, 1, "asset-5", sort="user", descending=False, limit=100, offset=0
            ),
            "their number": lambda: count_records(client.rows, 1, "asset-5"),
            "a report of 50 assets": lambda: read_report(client.rows, 1, limit=50),
        }
        found = {}
        for name, work in kinds.items():
            work()
            times = []
            for _ in range(reads if "report" not in name else max(reads // 20, 1)):
                began = time.perf_counter()
                work()
                times.append((time.perf_counter() - began) * 1000)
            found[name] = percentiles(times)
        client.close()
    return found


@dataclass
class Run:
    """What a run of writers found."""

    statuses: Counter[int] = field(default_factory=Counter)
    write_ms: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    late: int = 0
    sent: dict[tuple[int, str], int] = field(default_factory=dict)
    """By user and asset the interactions of the telemetry that was acknowledged last."""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class School:
    """An academy of a pipeline's registry."""

    base_url: str
    academy: int
    users: int
    token: str

    def path(self, user: int, asset: str) -> str:
        """Return the URL of a record."""
        return f"{self.base_url}/v1/assignment/academy/asset/{asset}/user/{user}/telemetry"

    @property
    def headers(self) -> dict[str, str]:
        """Those that each request has."""
        return {"Authorization": f"Token {self.token}", "Academy": str(self.academy)}


def found_school(settings: Settings, users: int) -> School:
    """Make an academy with so many users."""
    engine = open_engine(settings)
    academy, accounts = Academies(engine).create("Bench"), Users(engine)
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(b'{"id":%d,"name":"Learner"}\n' % user for user in range(1, users + 1)))
        file.seek(0)
        for _ in import_rows(engine, USERS, file, _never):
            pass
    teacher = accounts.create("Teacher")
    Grants(engine).grant(teacher, academy, "crud_telemetry")
    token = accounts.create_token(teacher)
    engine.dispose()
    return School(f"http://127.0.0.1:{settings.port}", academy, users, token)


def _never(*problem: object) -> None:
    raise RuntimeError(f"a user was refused: {problem}")


async def write(school: School, rate_s: float, seconds: float, readers: int, seed: int) -> Run:
    """Let learners write at a steady rate, each record never twice at once, while others read."""
    run = Run()
    choice = random.Random(seed)
    learners = _learners(school, seed)
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers=school.headers, timeout=_TIMEOUT) as session:
        start = time.monotonic()
        end = start + seconds
        reading = [asyncio.create_task(_keep_reading(session, school, run, end, seed + n)) for n in range(readers)]
        async with asyncio.TaskGroup() as group:
            busy: set[int] = set()
            for number in range(int(rate_s * seconds)):
                due = start + number / rate_s
                now = time.monotonic()
                if now < due:
                    await asyncio.sleep(due - now)
                elif now > due + 0.1:
                    run.late += 1
                while len(busy) >= _MAX_WAITING:  # noqa: ASYNC110  slower than the rate: those that follow are late
                    await asyncio.sleep(0.005)
                user = choice.randrange(school.users)
                while user in busy:
                    user = choice.randrange(school.users)
                busy.add(user)
                task = group.create_task(_write_one(session, school, run, learners[user], user + 1))
                task.add_done_callback(partial(_leave, busy, user))
        await asyncio.gather(*reading)
    return run


def _learners(school: School, seed: int) -> list[Learner]:
    return [Learner(seed, user, _EXERCISE, _BEGAN_MS) for user in range(1, school.users + 1)]


def _leave(busy: set[int], user: int, _: asyncio.Task[None]) -> None:
    busy.discard(user)


async def _write_one(session: aiohttp.ClientSession, school: School, run: Run, learner: Learner, user: int) -> None:
    asset = _EXERCISE.slug
    count = min(run.sent.get((user, asset), 0) + 1, len(learner.interactions))
    telemetry = learner.telemetry(count)
    began = time.perf_counter()
    url = school.path(user, asset)
    sent = orjson.dumps({"telemetry": telemetry})
    async with session.post(url, params={"compute": "true"}, data=sent) as reply:
        body = await reply.read()
    run.write_ms.append((time.perf_counter() - began) * 1000)
    run.statuses[reply.status] += 1
    if reply.status < 300:
        run.sent[user, asset] = count
        if sent[1:-1] not in body:
            run.wrong.append(f"user {user}: the reply does not show the write")


async def _keep_reading(session: aiohttp.ClientSession, school: School, run: Run, end: float, seed: int) -> None:
    choice = random.Random(seed)
    while time.monotonic() < end:
        await asyncio.sleep(_READ_EVERY_S)
        if not run.sent:
            continue
        user, asset = choice.choice(list(run.sent))
        began = time.perf_counter()
        async with session.get(school.path(user, asset)) as reply:
            await reply.read()
        run.read_ms.append((time.perf_counter() - began) * 1000)
        run.statuses[reply.status] += 1


async def compare(school: School, run: Run, seed: int) -> None:
    """Read some of the records again, and note those that are not what was acknowledged last."""
    slots = asyncio.Semaphore(_READ_AT_ONCE)
    learners = _learners(school, seed)

    async def read(session: aiohttp.ClientSession, user: int, asset: str) -> None:
        async with slots, session.get(school.path(user, asset)) as reply:
            body = await reply.json()
        if body.get("telemetry") != learners[user - 1].telemetry(run.sent[user, asset]):
            run.wrong.append(f"user {user}: another telemetry than was acknowledged last")

    written = random.Random(0).sample(list(run.sent), min(len(run.sent), _COMPARED))
    async with aiohttp.ClientSession(headers=school.headers, timeout=_TIMEOUT) as session:
        await asyncio.gather(*(read(session, *key) for key in written))


def measured(pipeline: BenchPipeline, school: School, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a run of writes took."""
    control_us = parse_us_per_event()
    asyncio.run(write(school, args.rate, 5.0, args.readers, 1))  # warms up
    with Watch(pipeline.home) as watch:
        run = asyncio.run(write(school, args.rate, args.seconds, args.readers, 2))
    asyncio.run(compare(school, run, 2))
    writes = len(run.write_ms)
    cpu_us = {kind: round(used.cpu_s / writes * 1e6) for kind, used in watch.usage.items()}
    clickhouse: ClickHouse = open_client(pipeline.settings)
    ((rows, inserts),) = clickhouse.rows("SELECT count(), uniqExact(writer, batch) FROM assignment_rows")
    clickhouse.close()
    return {
        "control_us": round(control_us, 2),
        "writes": writes,
        "late": run.late,
        "statuses": dict(run.statuses),
        "write_ms": percentiles(run.write_ms),
        "read_ms": percentiles(run.read_ms),
        "rows_an_insert": round(rows / inserts, 1),
        "cpu_us_a_write": {**cpu_us, "all": sum(cpu_us.values())},
        "peak_mb": {kind: round(max(used.rss_bytes) / 1e6) for kind, used in watch.usage.items()},
        "wrong": run.wrong[:10],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--records", type=int, default=1_000_000, help="in the engine that is read; 0: leave that out")
    parser.add_argument("--reads", type=int, default=200, help="of each kind")
    parser.add_argument("--rate", type=float, default=500.0, help="writes a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--readers", type=int, default=2, help="that read two records a second each meanwhile")
    args = parser.parse_args()
    if args.users < 2 * _MAX_WAITING:
        parser.error(f"at least {2 * _MAX_WAITING} users")
    result: dict[str, Any] = {}
    if args.records:
        result["read"] = read_stored(args.records, args.reads)
    folder = Path(tempfile.mkdtemp(prefix="midstream-bench-"))
    with bench_folder(folder) as held, BenchPipeline(held, partitions=2) as pipeline:
        result["write"] = measured(pipeline, found_school(pipeline.settings, args.users), args)
    print(json.dumps(result, indent=1))
    wrong = result["write"]["wrong"] or any(status >= 300 for status in result["write"]["statuses"])
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
