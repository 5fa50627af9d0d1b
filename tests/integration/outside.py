"""What those outside the pipeline do with it: apps post, analysts query, other producers write to Kafka."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any

import httpx
import psutil
from aiokafka import AIOKafkaProducer

from deploy.local.supervisor_client import SupervisorClient
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.settings import Settings
from midstream.topics import MAX_MESSAGE_BYTES
from tests.support.pipeline import ROOT, Pipeline
from tests.support.waiting import wait_until

Row = dict[str, Any]
Event = dict[str, Any]

EXAMPLES = ROOT / "schemas" / "telemetry" / "3.0" / "examples"
WORKERS = ("validate", "store", "devices", "jobs", "web")


def unique(prefix: str) -> str:
    """Return a name that nothing else has: tests share what is stored."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@cache
def _example(eid: str) -> str:
    return (EXAMPLES / eid.lower() / "valid" / "full.json").read_text("utf-8")


def make_event(eid: str = "INTERACT", /, **changes: Any) -> Event:
    """Return a valid event with all fields of its kind and a mid of its own, of now.

    ``did`` and ``channel`` change the context (None: leave it out), ``actor`` the actor's id; any other name is a
    field of the event.
    """
    event: Event = json.loads(_example(eid))
    event |= {"mid": unique(eid), "ets": now_ms()}
    for name in ("did", "channel"):
        if name in changes:
            value = changes.pop(name)
            event["context"].pop(name, None)
            if value is not None:
                event["context"][name] = value
    if "actor" in changes and isinstance(changes["actor"], str):
        event["actor"] = {"id": changes.pop("actor"), "type": "User"}
    return event | changes


def make_body(events: Sequence[Any], **params: Any) -> bytes:
    """Return a batch; ``params`` are its params. Events are values, or bytes that are taken as they are."""
    texts = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    head = {"id": "api.telemetry", "ver": "3.0", "ets": now_ms(), "params": params}
    return json.dumps(head).encode()[:-1] + b', "events": [' + b",".join(texts) + b"]}"


@dataclass(frozen=True)
class Counted:
    """What became of the events of some batches."""

    batches: int
    received: int
    stored: int
    duplicate: int
    rejected: int


class Outside:
    """Clients of one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.token = pipeline.token
        self.http = httpx.Client(base_url=pipeline.base_url, timeout=30, trust_env=False)
        self._clickhouse: ClickHouse | None = None

    def close(self) -> None:
        self.http.close()
        if self._clickhouse is not None:
            self._clickhouse.close()

    # An app

    def post(
        self, body: bytes, *, token: str | None = None, path: str = "/v1/telemetry", **headers: str
    ) -> httpx.Response:
        """Post a body as it is. ``x_device_id="d"`` gives a header ``X-Device-Id``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named = {"content-type": "application/json", "authorization": f"Bearer {token or self.token}", **named}
        return self.http.post(path, content=body, headers=named)

    def send(self, events: Sequence[Any], *, params: Row | None = None, **headers: str) -> str:
        """Post a batch that must be accepted; return its batch_id."""
        return accepted(self.post(make_body(events, **(params or {})), **headers))

    # An operator

    def cli(self, *arguments: str, **env: str) -> str:
        """Run `midstream` on the pipeline's home; return what it prints. ``env`` adds settings."""
        done = run_cli(self.pipeline, *arguments, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @cached_property
    def operator(self) -> str:
        """A token of an operator."""
        return self.cli("token", "create", unique("operator"), "--role", "operator")

    def operate(self, method: str, path: str, body: bytes | Row | None = None) -> httpx.Response:
        """Send an operator's request."""
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        return self.http.request(method, path, content=content, headers={"authorization": f"Bearer {self.operator}"})

    # An analyst

    @property
    def clickhouse(self) -> ClickHouse:
        if self._clickhouse is None:
            ca = self.pipeline.settings.get("clickhouse_ca")
            where = {"clickhouse": self.pipeline.clickhouse_dsn, "clickhouse_ca": ca}
            self._clickhouse = open_client(Settings.model_validate(where))
        return self._clickhouse

    def rows(self, sql: str, **parameters: Any) -> list[Row]:
        """Run a query; ``{name:Type}`` in it are parameters. Times have their zone, which is UTC."""
        rows = self.clickhouse.named_rows(sql, parameters or None)
        for row in rows:
            row |= {name: value.replace(tzinfo=UTC) for name, value in row.items() if isinstance(value, datetime)}
        return rows

    def row(self, sql: str, **parameters: Any) -> Row:
        """Run a query that has one row."""
        rows = self.rows(sql, **parameters)
        assert len(rows) == 1, rows
        return rows[0]

    def value(self, sql: str, **parameters: Any) -> Any:
        """Run a query that has one value."""
        [value] = self.row(sql, **parameters).values()
        return value

    def events(self, mids: Collection[str]) -> dict[str, Row]:
        """Return what is stored of these mids; none may be there twice."""
        rows = self.rows("SELECT * FROM events WHERE mid IN {mids:Array(String)}", mids=list(mids))
        found = {row["mid"]: row for row in rows}
        assert len(found) == len(rows), "a mid is stored twice"
        return found

    def duplicates(self, batch_ids: Collection[str]) -> list[Row]:
        sql = "SELECT * FROM duplicates WHERE batch_id IN {ids:Array(String)} ORDER BY batch_id, event_index"
        return self.rows(sql, ids=list(batch_ids))

    def rejects(self, batch_ids: Collection[str]) -> list[Row]:
        """Return rows of rejects; ``raw`` as bytes."""
        sql = "SELECT *, hex(raw) AS raw_hex FROM rejects WHERE batch_id IN {ids:Array(String)}"
        rows = self.rows(sql + " ORDER BY batch_id, event_index", ids=list(batch_ids))
        return [row | {"raw": bytes.fromhex(row.pop("raw_hex"))} for row in rows]

    def counted(self, batch_ids: Collection[str]) -> Counted:
        """Return what became of the events of these batches up to now."""
        here = "WHERE batch_id IN {ids:Array(String)}"
        row = self.row(
            f"SELECT (SELECT (count(), sum(events)) FROM batches {here}) AS batches,"
            f" (SELECT count() FROM events {here}) AS stored,"
            f" (SELECT count() FROM duplicates {here}) AS duplicate,"
            f" (SELECT count() FROM rejects {here}) AS rejected",
            ids=list(batch_ids),
        )
        batches, received = row["batches"]
        return Counted(batches, received, row["stored"], row["duplicate"], row["rejected"])

    def settle(self, batch_ids: Collection[str], timeout_s: float = 20.0) -> Counted:
        """Wait until every event of these batches is stored, a duplicate or rejected; return how many of each."""
        ids = set(batch_ids)

        def settled() -> Counted | None:
            found = self.counted(ids)
            done = found.batches == len(ids) and found.stored + found.duplicate + found.rejected >= found.received
            return found if done else None

        found = wait_until(f"{len(ids)} batches are through", settled, timeout_s)
        assert found.stored + found.duplicate + found.rejected == found.received
        return found

    def wait_accounted(self, timeout_s: float = 30.0) -> None:
        """Wait until every event that was received is somewhere: nothing in flight, nothing unaccounted.

        On the way there, events can be stored a moment before the row of their batch is: then less than nothing is
        unaccounted.
        """
        sql = "SELECT sum(in_flight) AS in_flight, sum(unaccounted) AS unaccounted FROM accounting"
        nothing = {"in_flight": 0, "unaccounted": 0}
        wait_until("all is accounted for", lambda: self.row(sql) == nothing, timeout_s, interval_s=0.25)


def run_cli(pipeline: Pipeline, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `midstream` on a pipeline's home."""
    return subprocess.run(
        [sys.executable, "-m", "midstream.cli", *arguments],
        cwd=ROOT,
        env={**pipeline.env, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def accepted(response: httpx.Response) -> str:
    """Return the batch_id of a reply that must be a success in its documented form."""
    assert response.status_code == 200, response.text
    check_reply(response, "successful")
    return response.headers["x-batch-id"]


def check_reply(response: httpx.Response, status: str) -> Row:
    """Check the form that clients in the field read, on errors too; return the reply's params."""
    reply = response.json()
    assert isinstance(reply["ets"], int)
    assert abs(reply["ets"] - now_ms()) < 60_000
    assert reply["id"] == "api.telemetry"
    assert reply["params"]["status"] == status
    assert (reply["params"]["err"] is None) == (status == "successful")
    params: Row = reply["params"]
    return params


def processes_of(pipeline: Pipeline) -> dict[str, tuple[int, ...]]:
    """Return the process ids of each worker; of ``web`` its parent and all that serve."""
    found: dict[str, tuple[int, ...]] = {name: (pipeline.pid_of(name),) for name in WORKERS}
    found["web"] += tuple(sorted(web_workers(pipeline)))
    return found


def web_workers(pipeline: Pipeline) -> list[int]:
    """Return the ids of the living processes that serve the base URL."""
    found = []
    for child in psutil.Process(pipeline.pid_of("web")).children():
        with suppress(psutil.NoSuchProcess):  # a zombie is none
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def stop_process(pipeline: Pipeline, name: str) -> None:
    """Stop a supervised process; it stays stopped until :func:`start_process`."""
    supervisor = SupervisorClient(pipeline.home.socket)
    supervisor.stop(name)
    wait_until(f"{name} has stopped", lambda: supervisor.processes()[name].state == "STOPPED", 30)


def start_process(pipeline: Pipeline, name: str) -> None:
    """Start a supervised process."""
    SupervisorClient(pipeline.home.socket).start(name)


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end in a thread with a loop of its own; tests may have one running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result(120)


@dataclass(frozen=True)
class Record:
    """A Kafka record to be."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


def produce(pipeline: Pipeline, topic: str, records: Sequence[Record]) -> list[tuple[int, int]]:
    """Write records to a topic as any producer could; return partition and offset of each."""

    async def run() -> list[tuple[int, int]]:
        producer = AIOKafkaProducer(
            bootstrap_servers=pipeline.kafka_servers, acks="all", max_request_size=MAX_MESSAGE_BYTES + 32 * 1024
        )
        await producer.start()
        try:
            places = []
            for record in records:
                sent = await producer.send_and_wait(
                    topic, record.value, record.key, record.partition, headers=list(record.headers)
                )
                places.append((sent.partition, sent.offset))
            return places
        finally:
            await producer.stop()

    places: list[tuple[int, int]] = run_apart(run())
    return places


def without(event: Event, *path: str) -> Event:
    """Return a copy of an event that lacks the field at ``path``."""
    return changed(event, *path, remove=True)


def changed(event: Event, *path: str, value: Any = None, remove: bool = False) -> Event:
    """Return a copy of an event with another value at ``path``."""
    copied = copy.deepcopy(event)
    holder = copied
    for name in path[:-1]:
        holder = holder[name]
    if remove:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return copied
