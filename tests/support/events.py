"""A valid event, sent to a pipeline and looked for."""

from __future__ import annotations

import time
import uuid

import httpx

from midstream.clickhouse.client import ClickHouseError, open_client
from midstream.settings import Settings
from tests.support.pipeline import Pipeline


def post_event(pipeline: Pipeline) -> str:
    """Post an event as clients do, again after a 503 or no answer; return its mid once it is durable."""
    mid = f"LOG:{uuid.uuid4().hex}"
    event = {
        "eid": "LOG",
        "ets": int(time.time() * 1000),
        "ver": "3.0",
        "mid": mid,
        "actor": {"id": "u", "type": "User"},
        "context": {"channel": "c", "env": "e"},
        "edata": {"type": "t", "level": "INFO", "message": "m"},
    }
    body = {"id": "api.telemetry", "ver": "3.0", "events": [event]}
    headers = {"Authorization": f"Bearer {pipeline.token}"}
    deadline = time.monotonic() + 60
    while True:
        try:
            response = httpx.post(f"{pipeline.base_url}/v1/telemetry", json=body, headers=headers, timeout=20)
        except httpx.TransportError:  # a worker of a killed parent is ended, in the midst of a request too
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
            continue
        if response.status_code != 503 or time.monotonic() > deadline:
            break
        time.sleep(float(response.headers["retry-after"]))
    assert response.status_code == 200, response.text
    return mid


def count_stored(pipeline: Pipeline, mid: str) -> int:
    """Return how many events of this mid are stored; 0 while ClickHouse does not answer."""
    try:
        client = open_client(Settings.model_validate({"clickhouse": pipeline.clickhouse_dsn}))
        try:
            return int(client.rows("SELECT count() FROM events WHERE mid = {mid:String}", {"mid": mid})[0][0])
        finally:
            client.close()
    except ClickHouseError:
        return 0
