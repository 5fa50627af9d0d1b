"""What became of an event, asked of the running pipeline: stored, duplicate, rejected, on its way, unknown."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from midstream import topics
from tests.integration.outside import (
    Outside,
    Record,
    Row,
    make_body,
    make_event,
    produce,
    run_cli,
    start_process,
    stop_process,
    unique,
)
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

FIELDS = {"batch_id", "msgid", "received_at", "did", "credential", "source", "topic", "partition", "offset", "outcome"}


@pytest.fixture(scope="module")
def clients(quiet: Pipeline) -> Iterator[Outside]:
    found = Outside(quiet)
    yield found
    found.close()


def ask(clients: Outside, mid: str, token: str | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {token or clients.operator}"}
    return clients.http.get(f"/v1/trace/{quote(mid, safe='')}", headers=headers)


def trace(clients: Outside, mid: str, token: str | None = None) -> Row:
    response = ask(clients, mid, token)
    assert response.status_code == 200, response.text
    found: Row = response.json()
    assert found["mid"] == mid
    assert all(arrival.keys() >= FIELDS for arrival in found["arrivals"])
    return found


def settled_trace(clients: Outside, mid: str, outcomes: list[str], token: str | None = None) -> Row:
    """Wait until a mid's arrivals have these outcomes, and nothing is left to be searched; return its trace."""

    def settled() -> Row | None:
        response = ask(clients, mid, token)
        assert response.status_code == 200, response.text
        found: Row = response.json()
        is_as_wanted = [arrival["outcome"] for arrival in found["arrivals"]] == outcomes
        return found if is_as_wanted and found["complete"] else None

    return wait_until(f"{mid} is {outcomes}", settled)


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


@contextmanager
def frozen(pipeline: Pipeline, name: str) -> Iterator[None]:
    """Hold a process still, for less than its session lasts."""
    pid = pipeline.pid_of(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def lies_in_kafka(clients: Outside, arrival: Row) -> bool:
    """Whether the record at an arrival's place is its batch."""
    rows = clients.rows("SELECT partition, offset FROM batches WHERE batch_id = {id:String}", id=arrival["batch_id"])
    return [(row["partition"], row["offset"]) for row in rows] == [(arrival["partition"], arrival["offset"])]


def test_the_whole_way_of_an_event_that_came_twice(clients: Outside) -> None:
    event = make_event(did="phone-1")
    first = clients.send([make_event(), event], params={"did": "phone-1", "msgid": "m-1"})
    settled_trace(clients, event["mid"], ["stored"])
    second = clients.send([event], params={"did": "phone-2", "msgid": "m-2"})
    found = settled_trace(clients, event["mid"], ["stored", "duplicate"])
    assert (found["verdict"], found["complete"], found["reject"]) == ("stored", True, None)
    assert found["event"] == event
    one, two = found["arrivals"]
    assert (one["batch_id"], one["event_index"], one["did"], one["msgid"]) == (first, 1, "phone-1", "m-1")
    assert (two["batch_id"], two["event_index"], two["did"], two["msgid"]) == (second, 0, "phone-2", "m-2")
    assert (one["source"], one["topic"], two["differs"]) == ("http", topics.RAW.name, False)
    assert moment(one["received_at"]) <= moment(two["received_at"]) <= datetime.now(UTC)
    wait_until("their batches are written", lambda: all(lies_in_kafka(clients, arrival) for arrival in (one, two)))

    def visible() -> Row | None:
        stored: Row = trace(clients, event["mid"])["stored"]
        return stored if "visible_at" in stored else None

    stored = wait_until("the moment of visibility is written", visible)
    assert stored["table"] == "learning_events"
    assert moment(one["received_at"]) <= moment(stored["stored_at"]) <= moment(stored["visible_at"])


def test_operational_events_are_in_a_table_of_their_own(clients: Outside) -> None:
    event = make_event("LOG")
    clients.send([event])
    assert settled_trace(clients, event["mid"], ["stored"])["stored"]["table"] == "operational_events"


def test_a_refused_event_is_found_with_its_reason(clients: Outside) -> None:
    event = make_event()
    del event["edata"]["id"]
    batch_id = clients.send([event])
    found = settled_trace(clients, event["mid"], ["rejected"])
    assert (found["verdict"], found["stored"]) == ("rejected", None)
    assert found["reject"] == {
        "code": "SCHEMA_VIOLATION",
        "pointer": "/edata/id",
        "message": "'id' is a required property",
    }
    assert found["arrivals"][0]["batch_id"] == batch_id
    clients.send([event | {"edata": make_event()["edata"]}])  # corrected, under its mid
    found = settled_trace(clients, event["mid"], ["rejected", "stored"])
    assert (found["verdict"], found["reject"]) == ("stored", None)


def test_a_mid_never_seen_is_404(clients: Outside) -> None:
    response = ask(clients, unique("never"))
    assert (response.status_code, response.json()["verdict"], response.json()["code"]) == (404, "unknown", "NOT_FOUND")


ODD = ["a/b//c d", "50%/%2F", "quo\"te'\\back", "ünï☃😀", "line\nbreak\ttab\x01", "?x=1&y#z", "m" * 10_000]


@pytest.mark.parametrize("mid", ODD)
def test_a_mid_of_any_characters(clients: Outside, mid: str) -> None:
    mid += unique("")
    event = make_event(mid=mid)
    clients.send([event])
    assert trace(clients, mid)["verdict"] in ("in_flight", "stored")
    assert settled_trace(clients, mid, ["stored"])["event"] == event
    clients.send([event])
    settled_trace(clients, mid, ["stored", "duplicate"])


def test_slashes_may_stand_in_the_path_as_they_are(clients: Outside) -> None:
    mid = f"a/b/{unique('m')}"
    clients.send([make_event(mid=mid)])
    settled_trace(clients, mid, ["stored"])
    headers = {"authorization": f"Bearer {clients.operator}"}
    assert clients.http.get(f"/v1/trace/{mid}", headers=headers).json()["verdict"] == "stored"


def test_accepted_is_never_unknown(clients: Outside) -> None:
    for number in range(30):
        event = make_event(("LOG", "START")[number % 2])
        refused = {"eid": "NOBODY", "mid": unique("refused")}
        clients.send([event, refused])
        for mid in (event["mid"], refused["mid"]):
            seen = []
            while not seen or seen[-1] == "in_flight":
                seen.append(trace(clients, mid)["verdict"])  # fails on a 404
            assert seen[-1] == ("stored" if mid == event["mid"] else "rejected")


@pytest.mark.parametrize("name", ["validate", "store"])
def test_on_its_way_it_is_found_with_its_place(clients: Outside, name: str) -> None:
    pipeline = clients.pipeline
    event, refused = make_event(tags=["\\u0041"]), {"eid": "NOBODY", "mid": f"ünï/{unique('r')}"}
    with frozen(pipeline, name):
        body = make_body([make_event(), event, refused], did="phone-1", msgid="m-1")
        batch_id = clients.post(gzip.compress(body)).headers["x-batch-id"]
        for index, mid in ((1, event["mid"]), (2, refused["mid"])):
            # Behind a frozen store, validate goes on meanwhile: the event moves from topic to topic.
            for _ in range(5):
                found = trace(clients, mid)
                assert (found["verdict"], found["complete"], found["stored"]) == ("in_flight", True, None)
                (arrival,) = found["arrivals"]
                assert (arrival["batch_id"], arrival["event_index"], arrival["outcome"]) == (
                    batch_id,
                    index,
                    "in_flight",
                )
                assert (arrival["did"], arrival["msgid"], arrival["topic"]) == ("phone-1", "m-1", topics.RAW.name)
                assert isinstance(arrival["offset"], int)
        many = clients.http.post(
            "/v1/trace",
            json={"mids": [event["mid"], refused["mid"], *(f"never-{number}" for number in range(50))]},
            headers={"authorization": f"Bearer {clients.operator}"},
        ).json()["traces"]
        assert [one["verdict"] for one in many] == ["in_flight", "in_flight", *["unknown"] * 50]
        cut_off = json.loads(
            run_cli(pipeline, "trace", event["mid"], "--json", MIDSTREAM_TRACE_SEARCH_BYTES="1").stdout
        )
        assert cut_off["complete"] is False
    pipeline.wait_ready()
    found = settled_trace(clients, event["mid"], ["stored"])
    assert lies_in_kafka(clients, found["arrivals"][0])
    assert found["arrivals"][0]["offset"] == arrival["offset"]
    settled_trace(clients, refused["mid"], ["rejected"])


def test_without_kafka_an_answer_is_not_complete(clients: Outside) -> None:
    event = make_event()
    clients.send([event])
    settled_trace(clients, event["mid"], ["stored"])
    with frozen(clients.pipeline, "kafka"):
        found = trace(clients, event["mid"])
        assert (found["verdict"], found["complete"]) == ("stored", False)
        found = trace(clients, unique("never"))
        assert (found["verdict"], found["complete"]) == ("unknown", False)
    clients.pipeline.wait_ready()
    wait_until("an answer is complete again", lambda: trace(clients, event["mid"])["complete"])


def test_in_the_spool_it_is_found(clients: Outside) -> None:
    event = make_event()
    stop_process(clients.pipeline, "kafka")
    try:
        batch_id = clients.send([make_event(), event], params={"did": "phone-1"})
        found = trace(clients, event["mid"])
        assert (found["verdict"], found["complete"]) == ("in_flight", False)
        (arrival,) = found["arrivals"]
        assert (arrival["batch_id"], arrival["event_index"], arrival["outcome"]) == (batch_id, 1, "in_flight")
        assert (arrival["source"], arrival["did"]) == ("spool", "phone-1")
        assert (arrival["topic"], arrival["partition"], arrival["offset"]) == (None, None, None)
    finally:
        start_process(clients.pipeline, "kafka")
        clients.pipeline.wait_ready()
    found = trace(clients, event["mid"])
    while found["verdict"] != "stored":
        # Never lost sight of on its way, unless a place could not be searched in time.
        assert found["verdict"] == "in_flight" or not found["complete"]
        time.sleep(0.05)
        found = trace(clients, event["mid"])
    assert [one["batch_id"] for one in found["arrivals"]] == [batch_id]


def test_an_app_sees_what_it_sent(clients: Outside) -> None:
    names = [unique("app"), unique("app")]
    own, other = (clients.cli("token", "create", name) for name in names)
    event = make_event()
    clients.post(make_body([event]), token=other)
    settled_trace(clients, event["mid"], ["stored"], other)
    assert ask(clients, event["mid"], own).status_code == 404
    clients.post(make_body([event]), token=own)
    found = settled_trace(clients, event["mid"], ["duplicate"], own)
    assert (found["verdict"], found["arrivals"][0]["credential"]) == ("stored", names[0])
    assert "event" not in found
    assert "event" not in settled_trace(clients, event["mid"], ["stored"], other)
    assert len(trace(clients, event["mid"])["arrivals"]) == 2


def test_a_thousand_at_once(clients: Outside) -> None:
    events = [make_event(("LOG", "START")[number % 2]) for number in range(400)]
    refused = [{"eid": "NOBODY", "mid": unique("r")} for _ in range(100)]
    batch_ids = [clients.send(events), clients.send(refused), clients.send(events[:50])]
    clients.settle(batch_ids)
    mids = [event["mid"] for event in [*events, *refused]] + [unique("never") for _ in range(500)]
    response = clients.http.post(
        "/v1/trace", json={"mids": mids}, headers={"authorization": f"Bearer {clients.operator}"}
    )
    traces = response.json()["traces"]
    assert [one["mid"] for one in traces] == mids
    assert [one["verdict"] for one in traces] == ["stored"] * 400 + ["rejected"] * 100 + ["unknown"] * 500
    assert sum(len(one["arrivals"]) for one in traces) == 550
    assert all(arrival["offset"] is not None for one in traces for arrival in one["arrivals"])


def test_a_batch_of_another_producer_is_traced_too(clients: Outside) -> None:
    event = make_event()
    ((partition, offset),) = produce(clients.pipeline, topics.RAW.name, [Record(make_body([event], did="d"))])
    (arrival,) = settled_trace(clients, event["mid"], ["stored"])["arrivals"]
    assert (arrival["source"], arrival["partition"], arrival["offset"]) == ("import", partition, offset)
    assert (arrival["credential"], arrival["did"]) == ("", "d")


def test_the_command_tells_the_same(clients: Outside) -> None:
    event = make_event(tags=["é\u202e"])
    batch_id = clients.send([event], params={"did": "phone-1"})
    expected = settled_trace(clients, event["mid"], ["stored"])
    done = run_cli(clients.pipeline, "trace", event["mid"], "--json")
    assert (done.returncode, done.stdout.isascii()) == (0, True)
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["event"] == event
    assert told["arrivals"] == expected["arrivals"]
    done = run_cli(clients.pipeline, "trace", event["mid"])
    assert done.returncode == 0, done.stderr
    for word in (f"{event['mid']}: stored", "learning_events", f"{batch_id}[0]", "phone-1", "telemetry.raw/"):
        assert word in done.stdout
    assert "\u202e" not in done.stdout


def test_the_command_says_what_it_does_not_know(clients: Outside) -> None:
    for mid in (unique("never"), ""):
        done = run_cli(clients.pipeline, "trace", mid)
        assert (done.returncode, "unknown" in done.stdout) == (1, True)
    assert run_cli(clients.pipeline, "trace").returncode == 2
    done = run_cli(clients.pipeline, "trace", "x", MIDSTREAM_CLICKHOUSE="http://127.0.0.1:1/midstream")
    assert done.returncode == 1
    assert "ClickHouse" in done.stderr
    assert "Traceback" not in done.stderr
