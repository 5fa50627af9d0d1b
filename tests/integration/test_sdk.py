"""The client that apps in the field use, against the real pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from tests.integration.outside import Event, Outside, Row, unique
from tests.support.pipeline import ROOT
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

SDK = ROOT / "tests" / "integration" / "sdk"
# The client has a method for each of the specification's.
EIDS = {
    "START", "IMPRESSION", "INTERACT", "ASSESS", "RESPONSE", "INTERRUPT", "FEEDBACK", "SHARE", "AUDIT", "ERROR",
    "HEARTBEAT", "LOG", "SEARCH", "METRICS", "EXDATA", "SUMMARY", "END",
}  # fmt: skip
TIMEOUT_S = 60

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (SDK / "node_modules" / ".package-lock.json").exists(),
    reason="the client is not installed: `make test` does that where Node.js is there",
)


@dataclass(frozen=True)
class App:
    """One run of the app: whose it is, and what its client says that it did."""

    channel: str
    did: str
    uid: str
    sent: dict[str, Event]
    requests: list[Row]


def settings_of(outside: Outside, host: str, batchsize: int) -> Row:
    return {
        "host": host,
        "token": outside.token,
        "channel": unique("channel"),
        "did": unique("did"),
        "uid": unique("uid"),
        "batchsize": batchsize,
        "timeoutMs": (TIMEOUT_S - 10) * 1000,
    }


@contextmanager
def start(settings: Row) -> Iterator[subprocess.Popen[bytes]]:
    """Run the app; it ends with the block at the latest."""
    client = subprocess.Popen(
        ["node", "app.js"], cwd=SDK, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert client.stdin is not None
        client.stdin.write(json.dumps(settings).encode())
        client.stdin.close()
        client.stdin = None
        yield client
    finally:
        client.kill()
        client.communicate()


@contextmanager
def front(port: int, collector: str, steps: list[str]) -> Iterator[None]:
    """Listen in front of the collector, and treat one request after the other as ``steps`` say."""
    left = iter(steps)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            step = next(left)
            if step == "503":
                self.answer(503, b'{"params": {"status": "failed"}}')
                return
            names = ("authorization", "content-type", "x-app-id", "x-device-id", "x-channel-id")
            headers = {name: self.headers[name] for name in names}
            reply = httpx.post(collector + self.path, content=body, headers=headers, timeout=20, trust_env=False)
            assert reply.status_code == 200
            if step == "lose the reply":
                self.close_connection = True
            else:
                self.answer(reply.status_code, reply.content)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def app_of(settings: Row, client: subprocess.Popen[bytes]) -> App:
    """Wait for the app's end."""
    output, errors = client.communicate(timeout=TIMEOUT_S)
    assert client.returncode == 0, errors.decode()
    said = json.loads(output)
    assert len({event["mid"] for event in said["sent"]}) == len(said["sent"])
    sent = {event["mid"]: event for event in said["sent"]}
    assert {event["eid"] for event in said["sent"]} == EIDS
    return App(settings["channel"], settings["did"], settings["uid"], sent, said["requests"])


def check_stored(outside: Outside, app: App) -> dict[str, Row]:
    """Every event once, whole, with what the client says in the right columns."""
    rows = outside.rows("SELECT * FROM events WHERE channel = {channel:String}", channel=app.channel)
    assert sorted(row["mid"] for row in rows) == sorted(app.sent)
    for row in rows:
        event = app.sent[row["mid"]]
        assert json.loads(row["raw"]) == event
        edata = event["edata"]
        assert json.loads(row["edata"]) == edata
        assert {
            "eid": row["eid"],
            "ver": row["ver"],
            "ets": round(row["ets"].timestamp() * 1000),
            "ets_original": row["ets_original"],
            "actor": (row["actor_type"], row["actor_id"]),
            "context": (row["env"], row["did"], row["sid"]),
            "pdata": (row["pdata_id"], row["pdata_pid"], row["pdata_ver"]),
            "object": (row["object_id"], row["object_ver"]),
            "cdata": json.loads(row["cdata"]),
            "tags": list(row["tags"]),
            "edata": (row["edata_type"], row["edata_id"], row["edata_pageid"], row["edata_subtype"]),
            "duration": row["edata_duration"],
            "late": row["late"],
        } == {
            "eid": event["eid"],
            "ver": "3.0",
            "ets": event["ets"],
            "ets_original": str(event["ets"]),
            "actor": ("User", app.uid),
            "context": ("library", app.did, "session-1"),
            "pdata": ("in.test.app", "test", "2.1"),
            "object": ("do_1", "1.0"),
            "cdata": [{"type": "class", "id": "class-7"}],
            "tags": ["one", "two"],
            "edata": tuple(edata.get(name, "") for name in ("type", "id", "pageid", "subtype")),
            "duration": edata.get("duration"),
            "late": False,
        }
    return {row["mid"]: row for row in rows}


def check_batches(outside: Outside, app: App, expected: list[int]) -> list[str]:
    """Batches of these sizes were received of the device; return their ids, once they are through."""
    sql = "SELECT batch_id, events, channel, app, credential, did FROM batches WHERE did = {did:String}"
    rows = wait_until(
        "all batches are known",
        lambda: found if len(found := outside.rows(sql, did=app.did)) == len(expected) else None,
    )
    assert sorted(row["events"] for row in rows) == sorted(expected)
    assert {(row["channel"], row["app"], row["credential"]) for row in rows} == {(app.channel, "in.test.app", "demo")}
    return [row["batch_id"] for row in rows]


@pytest.mark.parametrize("batchsize", [5, 20])
def test_every_event_of_the_client_is_stored(outside: Outside, batchsize: int) -> None:
    settings = settings_of(outside, outside.pipeline.base_url, batchsize)
    with start(settings) as client:
        app = app_of(settings, client)
    assert [request["status"] for request in app.requests] == [200] * -(-len(EIDS) // batchsize)
    found = outside.settle(check_batches(outside, app, [len(request["mids"]) for request in app.requests]))
    assert (found.stored, found.duplicate, found.rejected) == (len(EIDS), 0, 0)
    check_stored(outside, app)


def test_a_client_that_had_to_try_again_is_counted_once(outside: Outside) -> None:
    """Nobody listens; 503; the collector takes it but the reply is lost; taken again."""
    [port] = free_ports(1)
    settings = settings_of(outside, f"http://127.0.0.1:{port}", batchsize=20)
    with start(settings) as client:
        assert client.stderr is not None
        assert client.stderr.readline() == b"null\n"
        with front(port, outside.pipeline.base_url, ["503", "lose the reply", "forward"]):
            app = app_of(settings, client)
    assert [request["status"] for request in app.requests] == [None, 503, None, 200]
    assert {tuple(request["mids"]) for request in app.requests} == {tuple(app.sent)}
    batch_ids = check_batches(outside, app, [len(EIDS)] * 2)
    found = outside.settle(batch_ids)
    assert (found.stored, found.duplicate, found.rejected) == (len(EIDS), len(EIDS), 0)
    stored = check_stored(outside, app)
    [first] = {row["batch_id"] for row in stored.values()}
    duplicates = outside.duplicates(batch_ids)
    assert {row["mid"] for row in duplicates} == set(app.sent)
    assert {(row["first_batch_id"], row["differs"]) for row in duplicates} == {(first, False)}
