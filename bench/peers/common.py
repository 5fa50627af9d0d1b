"""What both peers do with an event, written plainly: split, ``jsonschema`` by eid, two look-ups, one row of JSON.

Runs in the peers' environment, so it imports nothing of Midstream; the schemas are the same files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import orjson
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

_SCHEMAS = Path(__file__).resolve().parents[2] / "schemas" / "telemetry" / "3.0"
_SHARED = ("common.json", "envelope.json")

EVENTS_TABLE, REJECTS_TABLE = "peer_events", "peer_rejects"
BATCH_ROWS = 5_000
BATCH_S = 1.0

Event = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is told: one line of JSON on its standard input."""

    kafka: str
    topic: str
    clickhouse_port: int
    state: str


def read_job() -> Job:
    """Read the job."""
    return Job(**json.loads(sys.stdin.readline()))


def say_ready() -> None:
    """Say that what comes now is work on events."""
    print("ready", flush=True)


def split(value: bytes) -> list[Event]:
    """Return the events of a batch."""
    events: list[Event] = orjson.loads(value)["events"]
    return events


class Checker:
    """``jsonschema`` by eid."""

    def __init__(self) -> None:
        files = {path.name: json.loads(path.read_text("utf-8")) for path in _SCHEMAS.glob("*.json")}
        resources = [DRAFT202012.create_resource(schema) for schema in files.values()]
        registry: Registry[Any] = Registry().with_resources((r.id() or "", r) for r in resources)
        self._validators = {
            name.removesuffix(".json").upper(): Draft202012Validator(schema, registry=registry)
            for name, schema in files.items()
            if name not in _SHARED
        }

    def error(self, event: Event) -> str:
        """Return what is wrong with an event, "" if nothing is."""
        validator = self._validators.get(event.get("eid", ""))
        if validator is None:
            return "unknown eid"
        first = next(validator.iter_errors(event), None)
        return "" if first is None else str(first.message)


class Warehouse:
    """ClickHouse: the dimensions, read once, and inserts of JSON lines."""

    def __init__(self, port: int) -> None:
        self._client = clickhouse_connect.get_client(
            host="127.0.0.1", port=port, database="midstream", autogenerate_session_id=False
        )
        rows = self._client.query("SELECT type, id, attributes FROM dimensions").result_rows
        self._users = {id_: text for type_, id_, text in rows if type_ == "user"}
        self._devices = {id_: text for type_, id_, text in rows if type_ == "device"}

    def row(self, event: Event) -> Row:
        """Return the row of a valid event, with its user and its device."""
        context, actor = event["context"], event["actor"]
        did, pdata, thing = context.get("did", ""), context.get("pdata", {}), event.get("object", {})
        return {
            "mid": event["mid"],
            "eid": event["eid"],
            "ets": event["ets"],
            "channel": context["channel"],
            "env": context["env"],
            "did": did,
            "sid": context.get("sid", ""),
            "actor_id": actor["id"],
            "actor_type": actor["type"],
            "pdata_id": pdata.get("id", ""),
            "object_id": thing.get("id", ""),
            "object_type": thing.get("type", ""),
            "edata": orjson.dumps(event["edata"]).decode(),
            "user": self._users.get(actor["id"], ""),
            "device": self._devices.get(did, ""),
        }

    def insert(self, table: str, rows: Iterable[Row]) -> None:
        """Insert rows as JSON lines."""
        body = b"\n".join(orjson.dumps(row) for row in rows)
        if body:
            self._client.raw_insert(table, insert_block=body, fmt="JSONEachRow")


def reject_row(event: Event, error: str) -> Row:
    """Return the row of an event that is not valid."""
    return {"mid": event.get("mid", ""), "error": error, "raw": orjson.dumps(event).decode()}


Judged = tuple[Event, str]


def judging(checker: Checker) -> Callable[[Event], Judged]:
    """Return the step that pairs an event with what is wrong with it."""
    return lambda event: (event, checker.error(event))
