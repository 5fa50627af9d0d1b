"""A record that makes a worker fail or die: parked after its tries, its neighbours stored, everything accounted for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from midstream import topics
from midstream.receipt import Receipt, encode_receipt
from tests.integration.outside import Event, Outside, Record, make_body, make_event, produce, unique
from tests.support.pipeline import ROOT, Pipeline
from tests.support.waiting import wait_until

TRIES = 2
STANDIN = ROOT / "tests" / "support" / "standins" / "failing"
# Each try ends a worker, which is started again at once or, when it died young, some seconds later.
PARKED_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline whose workers fail at marked events."""
    pipeline = Pipeline(tmp_path_factory.mktemp("poison") / "home", record_tries=TRIES, partitions=1)
    pipeline.env["PYTHONPATH"] = os.pathsep.join([str(STANDIN), str(ROOT)])
    with pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def clients(failing: Pipeline) -> Iterator[Outside]:
    found = Outside(failing)
    yield found
    found.close()


def metric(pipeline: Pipeline, stage: str, name: str) -> float:
    port = pipeline.settings[f"{stage}_metrics_port"]
    page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20, trust_env=False).text
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


def check_goes_on(clients: Outside, stage: str) -> None:
    """The worker stays up, takes what comes next, suspects nothing any more, and the accounting closes."""
    pipeline = clients.pipeline
    clients.settle([clients.send([make_event() for _ in range(5)])], 60)
    pid = pipeline.pid_of(stage)
    time.sleep(3)
    clients.settle([clients.send([make_event()])])
    assert pipeline.pid_of(stage) == pid
    assert psutil.pid_exists(pid)
    assert metric(pipeline, stage, "midstream_suspect_records") == 0
    clients.wait_accounted(60)


def batch_with(killer: Event, at: int = 7) -> list[Event]:
    events = [make_event(channel="poison") for _ in range(20)]
    events[at] = killer
    return events


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("stage", "place", "way"),
    [
        ("validate", "judge", "raise"),
        ("validate", "row", "segv"),
        ("validate", "judge", "memory"),
        ("store", "join", "raise"),
        ("store", "join", "segv"),
    ],
)
def test_one_event_is_parked_and_its_neighbours_are_stored(clients: Outside, stage: str, place: str, way: str) -> None:
    before = clients.pipeline.pid_of(stage)
    killer = make_event(channel="poison") | {"mid": unique(f"{place}!{way}")}
    events = batch_with(killer)
    batch_id = clients.send(events)
    found = clients.settle([batch_id], PARKED_TIMEOUT_S)
    assert (found.stored, found.duplicate, found.rejected) == (19, 0, 1)
    assert set(clients.events([event["mid"] for event in events])) == {
        event["mid"] for event in events if event is not killer
    }
    [reject] = clients.rejects([batch_id])
    assert (reject["code"], reject["scope"], reject["event_index"]) == ("POISON", "event", 7)
    assert (reject["mid"], reject["channel"]) == (killer["mid"], "poison")
    assert killer["mid"].encode() in reject["raw"]
    wanted = {"raise": "ZeroDivisionError", "memory": "MemoryError", "segv": "died"}[way]
    assert wanted in reject["message"]
    assert clients.pipeline.pid_of(stage) != before
    assert metric(clients.pipeline, stage, "midstream_poison_records_total") > 0
    check_goes_on(clients, stage)


@pytest.mark.timeout(300)
def test_two_bad_events_of_one_batch_are_both_parked(clients: Outside) -> None:
    events = batch_with(make_event() | {"mid": unique("row!raise")}, 3)
    events[11] = make_event() | {"mid": unique("judge!segv")}
    batch_id = clients.send(events)
    found = clients.settle([batch_id], PARKED_TIMEOUT_S)
    assert (found.stored, found.rejected) == (18, 2)
    assert [row["event_index"] for row in clients.rejects([batch_id])] == [3, 11]
    check_goes_on(clients, "validate")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["raise", "segv"])
def test_a_body_that_cannot_be_split_is_parked_whole(clients: Outside, way: str) -> None:
    events = [make_event() | {"mid": unique(f"split!{way}")} for _ in range(4)]
    response = clients.post(make_body(events))
    assert response.status_code == 200
    batch_id = response.headers["x-batch-id"]
    wait_until("it is parked", lambda: clients.rejects([batch_id]), PARKED_TIMEOUT_S, 0.5)
    [reject] = clients.rejects([batch_id])
    assert (reject["code"], reject["scope"], reject["event_index"], reject["events"]) == ("POISON", "batch", -1, 4)
    assert events[3]["mid"].encode() in reject["raw"]
    check_goes_on(clients, "validate")


@pytest.mark.timeout(300)
def test_a_block_that_cannot_be_read_is_kept_whole(clients: Outside) -> None:
    """Its own arrivals are named nowhere else, so they stay unaccounted: the block itself is what is left of them."""
    receipt = Receipt(
        batch_id=unique("foreign"), received_at_ms=int(time.time() * 1000), events=0, sequence=0, collector="k", bytes=0
    )
    body = make_body([make_event() | {"mid": unique("read!raise")}])
    produce(
        clients.pipeline, topics.RAW.name, [Record(body, headers=[(topics.RECEIPT_HEADER, encode_receipt(receipt))])]
    )
    sql = "SELECT code, scope, message FROM rejects WHERE startsWith(message, 'telemetry.valid/')"
    [row] = wait_until("it is parked", lambda: clients.rows(sql), PARKED_TIMEOUT_S, 0.5)
    assert (row["code"], row["scope"]) == ("POISON", "batch")
    assert "ZeroDivisionError" in row["message"]
    check_goes_on(clients, "store")


@pytest.mark.timeout(300)
def test_a_dead_letter_that_cannot_be_worked_on_is_parked_as_it_is(clients: Outside) -> None:
    bad = {"eid": "NOBODY", "mid": unique("letter!raise")}
    batch_id = clients.send([make_event(), bad, {"eid": "NOBODY"}])
    found = clients.settle([batch_id], PARKED_TIMEOUT_S)
    assert (found.stored, found.rejected) == (1, 2)
    [parked, usual] = clients.rejects([batch_id])
    assert (parked["code"], parked["event_index"], parked["mid"]) == ("POISON", 1, bad["mid"])
    assert "UNKNOWN_EID" in parked["message"]
    assert bad["mid"].encode() in parked["raw"]
    assert usual["event_index"] == 2
    assert usual["code"] != "POISON"
    check_goes_on(clients, "store")
