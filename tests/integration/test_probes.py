"""Probes, metrics and documentation of the running processes; Kafka and ClickHouse away and back."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from prometheus_client.metrics import MetricWrapperBase

from midstream import metrics
from tests.integration.outside import (
    Outside,
    make_body,
    make_event,
    processes_of,
    start_process,
    stop_process,
    unique,
    web_workers,
)
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

BACK_S = 60.0
"""How long everything may take to be ready again by itself."""

PARTS = {"collector", "kafka", "clickhouse", "validate", "store", "devices"}

# Which process shows what, by what ordinary traffic makes of it: with a sample, or declared only.
SHOWN = {
    "web": {
        "BUILD_INFO", "PROCESS_START_SECONDS", "DISK_FREE_BYTES", "DISK_TOTAL_BYTES",
        "COLLECTOR_ACCEPTING", "SPOOL_LIMIT_BYTES", "RATE_LIMIT_BUCKETS",
        "REQUESTS", "REQUEST_SECONDS", "RECEIVED_BATCHES", "RECEIVED_EVENTS", "RECEIVED_BYTES", "IN_FLIGHT_BYTES",
        "IN_FLIGHT_REQUESTS", "BACKLOG_BATCHES", "BACKLOG_LIMIT_BATCHES", "WAITING_REFUSALS",
        "CREDENTIAL_CACHE_ENTRIES", "DIMENSION_ROWS", "DEVICE_REGISTRATIONS", "DEVICE_LOOKUPS_WAITING",
        "DEVICE_ROWS_UNSEEN", "DEVICE_ATTRIBUTES_RESTORED", "IP_LOOKUPS", "IP_LOCATIONS_BUILT_SECONDS",
        "DIMENSION_IN_FLIGHT_BYTES", "VALIDATIONS", "PRODUCER_REBUILDS",
        "SPOOL_BYTES", "SPOOL_BATCHES", "SPOOL_OLDEST_AGE_SECONDS", "SPOOLED_BATCHES",
        "SPOOL_DRAINED_BATCHES", "SPOOL_REFUSED_BATCHES", "SPOOL_DAMAGED_BYTES",
        "TRACES", "TRACE_SECONDS", "TRACES_WAITING",
        "ACADEMY_CACHE_ENTRIES", "ASSIGNMENT_WRITES", "ASSIGNMENT_SECONDS", "ASSIGNMENTS_WAITING",
        "ASSIGNMENTS_UNPUBLISHED", "ASSIGNMENTS_PUBLISHED",
        "EXHAUST_CACHE_ENTRIES", "EXHAUST_DOWNLOADS", "EXHAUST_SENT_BYTES", "EXHAUST_FIRST_BYTE_SECONDS",
        "EXHAUST_LOG_DROPPED", "EXHAUST_KEPT_BYTES", "EXHAUST_KEPT_DAYS",
        "EXHAUST_REQUESTS_OPEN", "EXHAUST_REQUEST_BYTES", "ERASED_CACHE_ENTRIES",
        "DEVICE_REPORTS", "DEVICE_CACHE_ENTRIES", "DEVICE_CACHE_MISSES", "FLEET_EVENTS_WAITING",
    },
    "validate": {
        "VALIDATED_BATCHES", "VALIDATED_EVENTS", "DEAD_LETTERS", "SEALED_BLOCKS", "SEALED_ROWS",
        "TAKEN_BYTES", "VALIDATE_BUFFER_BYTES", "SUSPECT_RECORDS", "WAITING_FOR_STORE_BLOCKS",
    },
    "store": {
        "STORED_EVENTS", "DUPLICATE_EVENTS", "REPLAYED_EVENTS", "REJECTED_EVENTS", "RECEIPTS_STORED", "INSERT_SECONDS",
        "TAKEN_BYTES", "BLOCK_SECONDS", "VISIBLE_SECONDS", "DEDUPE_MIDS", "DEDUPE_BYTES", "DEDUPE_LIMIT_BYTES",
        "DIMENSION_CACHE_ENTRIES", "DIMENSION_CACHE_BYTES", "DIMENSION_VERSIONS_KNOWN", "DIMENSION_LOOKUPS",
        "UNACCOUNTED_EVENTS", "LAG_RECORDS", "ERASED_IDS", "ERASED_DIGESTS_HELD", "PSEUDONYMISED_EVENTS",
        "BLOCK_LOG_ROWS", "COMPLETE_UNTIL_SECONDS", "IN_FLIGHT_EVENTS", "OPEN_COLLECTORS",
        "LEARNED_SCHEMAS",
    },
    "jobs": {
        "SYNC_JOBS", "SYNC_SECONDS", "SYNC_ROWS_CHANGED", "SYNC_RUNNING", "SYNC_WAITING",
        "REACHABLE", "LAG_SECONDS", "PARTITION_PARTS", "PARTITION_PARTS_LIMIT", "CLICKHOUSE_MEMORY_BYTES",
        "CLICKHOUSE_MEMORY_LIMIT_BYTES", "DEVICES_SEEN",
    },
    "devices": {"STORED_REPORTS", "AHEAD_REPORTS", "REPORT_VISIBLE_SECONDS", "TAKEN_BYTES", "SUSPECT_RECORDS"},
}  # fmt: skip
# Of what goes wrong seldom; each process has the declaration.
SELDOM = {
    "DEDUPE_LOOKUPS": "store",
    "LEARNED_SCHEMAS": "store",
    "DIMENSION_COPIES_LEFT_OUT": "store",
    "INSERT_RETRIES": "store",
    "INSERTS_REPEATED": "store",
    "POISON_RECORDS": "store",
    "FATAL_ERRORS": "store",
    "CERTIFICATE_EXPIRES_SECONDS": "jobs",
    "SOURCE_ROWS": "jobs",
    "SOURCE_READ_SECONDS": "jobs",
    "CORRECTED_EVENTS": "jobs",
    "CORRECTION_SECONDS": "jobs",
    "CORRECTIONS_LEFT_OUT": "jobs",
}


def declared() -> dict[str, MetricWrapperBase]:
    return {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}


def samples(text: str) -> dict[str, float]:
    """Return the samples of a page of metrics, by name and labels."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def metrics_of(pipeline: Pipeline, name: str) -> httpx.Response:
    port = pipeline.settings["port" if name == "web" else f"{name}_metrics_port"]
    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20, trust_env=False)


@pytest.fixture(scope="module")
def traffic(outside: Outside) -> None:
    """Something of everything has gone through."""
    event = make_event(actor=(user := unique("u")))
    batch_ids = [outside.send([event, make_event("LOG")]), outside.send([event, {"eid": "NOBODY"}])]
    outside.settle(batch_ids)
    assert outside.operate("PUT", f"/v1/dimensions/user/{user}", {"a": 1}).status_code == 200
    assert outside.post(make_body([event]), path="/v1/validate").status_code == 200
    assert outside.operate("GET", f"/v1/trace/{event['mid']}").status_code == 200
    outside.wait_accounted()
    sync = {"request": {"objectType": "user", "objectIds": [user]}}
    job = outside.operate("POST", "/api/data/v1/index/sync", sync).json()["result"]["node_id"]
    wait_until("it is synced", lambda: outside.operate("GET", f"/v1/sync/{job}").json()["status"] == "done", 60)


@pytest.mark.parametrize("path", ["/health", "/accepting", "/ready"])
def test_probes_are_200_while_all_is_well(outside: Outside, path: str) -> None:
    for method in ("GET", "HEAD"):
        response = outside.http.request(method, path)
        assert response.status_code == 200
    answer = outside.http.get(path).json()
    assert (
        answer
        == {
            "/health": {"status": "alive"},
            "/accepting": {"accepting": True},
            "/ready": {"ready": True, "parts": dict.fromkeys(PARTS, "ok")},
        }[path]
    )


def test_every_metric_has_a_process_that_shows_it() -> None:
    assert set.union(*SHOWN.values(), SELDOM) == set(declared())


@pytest.mark.parametrize("name", SHOWN)
def test_every_metric_is_shown(outside: Outside, traffic: None, name: str) -> None:
    response = metrics_of(outside.pipeline, name)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    shown = {sample.partition("{")[0] for sample in samples(response.text)}
    for variable in SHOWN[name]:
        [family] = declared()[variable].describe()
        its = {sample for sample in shown if sample in (family.name, f"{family.name}_total", f"{family.name}_count")}
        assert its, f"{variable} has no sample"
        assert f"# HELP {min(its).removesuffix('_count')} " in response.text
    for variable in (variable for variable, of in SELDOM.items() if of == name):
        [family] = declared()[variable].describe()
        assert f"# TYPE {family.name}{'_total' if family.type == 'counter' else ''} {family.type}" in response.text


def test_metrics_count_what_happens(outside: Outside, traffic: None) -> None:
    def count() -> dict[str, float]:
        # Each declares all and counts its own.
        found: dict[str, float] = {}
        for name, variables in SHOWN.items():
            families = tuple(family.name for variable in variables for family in declared()[variable].describe())
            page = samples(metrics_of(outside.pipeline, name).text)
            found |= {sample: value for sample, value in page.items() if sample.startswith(families)}
        return found

    before = count()
    event = make_event("LOG")
    batch_ids = [outside.send([event, make_event(), {"eid": "NOBODY"}]), outside.send([event])]
    outside.settle(batch_ids)
    assert outside.post(b"nonsense").status_code == 400
    expected = {
        'midstream_requests_total{status="200"}': 2,
        'midstream_requests_total{status="400"}': 1,
        "midstream_request_seconds_count": 3,
        "midstream_received_batches_total": 2,
        "midstream_received_events_total": 4,
        "midstream_validated_batches_total": 2,
        'midstream_validated_events_total{verdict="valid"}': 3,
        'midstream_validated_events_total{verdict="refused"}': 1,
        'midstream_dead_letters_total{reason="MISSING_MID"}': 1,
        'midstream_stored_events_total{table="operational_events"}': 1,
        'midstream_stored_events_total{table="learning_events"}': 1,
        "midstream_duplicate_events_total": 1,
        "midstream_rejected_events_total": 1,
        "midstream_receipts_stored_total": 2,
        "midstream_replayed_events_total": 0,
    }

    def difference() -> dict[str, float]:
        after = count()
        return {name: after.get(name, 0) - before.get(name, 0) for name in expected}

    with suppress(AssertionError):  # the comparison below says more
        wait_until("all is counted", lambda: difference() == expected, 10)
    assert difference() == expected
    now = count()
    assert now["midstream_in_flight_bytes"] == 0
    assert now["midstream_unaccounted_events"] == 0
    assert now["midstream_dedupe_bytes"] > 0
    lags = {name for name in now if name.startswith("midstream_lag_records{")}
    assert {topic for name in lags for topic in re.findall(r'topic="(.+?)"', name)} >= {
        "telemetry.raw",
        "telemetry.valid",
        "telemetry.dead",
    }
    wait_until("nothing is behind", lambda: sum(count()[name] for name in lags) == 0, 10)


def test_documentation_is_there_and_asks_no_other_host(outside: Outside) -> None:
    document = outside.http.get("/openapi.json").json()
    assert {
        "/health",
        "/accepting",
        "/ready",
        "/metrics",
        "/v1/telemetry",
        "/api/data/v1/telemetry",
        "/v1/validate",
        "/v1/dimensions/{type}",
        "/v1/dimensions/{type}/{id}",
        "/api/api-manager/v1/consumer/{name}/credential/register",
    } <= set(document["paths"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), f"{method} {path}"
            assert operation["responses"], f"{method} {path}"
    page = outside.http.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for address in loaded:
        assert not re.match(r"(https?:)?//", address), address
        assert outside.http.get(address).status_code == 200
    assert outside.http.get("/").status_code == 200
    assert outside.http.get("/nothing/here").status_code == 404


# Away and back


@pytest.fixture
def clients(quiet: Pipeline) -> Iterator[Outside]:
    found = Outside(quiet)
    assert found.operator
    yield found
    found.close()


def status(clients: Outside, path: str) -> int:
    return clients.http.get(path).status_code


def test_without_kafka_batches_are_kept_and_the_rest_is_refused(quiet: Pipeline, clients: Outside) -> None:
    before = processes_of(quiet)["web"]
    events = [make_event() for _ in range(3)]
    clients.send([make_event()])
    stop_process(quiet, "kafka")
    try:
        began = time.monotonic()
        batch_ids = [clients.send(events[:1])]
        assert time.monotonic() - began < 12  # kafka_timeout_ms, and a little
        wait_until("/ready is 503", lambda: status(clients, "/ready") == 503, 15)
        began = time.monotonic()
        batch_ids.append(clients.send(events[1:2]))
        assert time.monotonic() - began < 3  # known by now: nobody waits
        assert {status(clients, "/accepting") for _ in range(10)} == {200}
        response = clients.operate("PUT", "/v1/dimensions/user/u", {"a": 1})
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert status(clients, "/health") == 200
        assert clients.http.get("/ready").json()["parts"]["collector"] == "ok"
    finally:
        start_process(quiet, "kafka")
    quiet.wait_ready(BACK_S)
    batch_ids.append(clients.send(events[2:]))
    found = clients.settle(batch_ids, BACK_S)
    assert (found.stored, found.duplicate) == (3, 0)
    assert set(clients.events([event["mid"] for event in events])) == {event["mid"] for event in events}
    clients.wait_accounted()
    assert processes_of(quiet)["web"] == before


def test_without_clickhouse_batches_are_kept_until_it_is_back(quiet: Pipeline, clients: Outside) -> None:
    before = processes_of(quiet)["web"]
    events = [make_event(eid) for eid in ("INTERACT", "LOG", "ASSESS") for _ in range(5)]
    stop_process(quiet, "engine")
    try:
        wait_until("/ready is 503", lambda: status(clients, "/ready") == 503, 15)
        assert clients.http.get("/ready").json()["parts"]["clickhouse"] != "ok"
        assert status(clients, "/accepting") == 200
        batch_ids = [clients.send([event, {"eid": "NOBODY"}, events[0]]) for event in events]
        response = clients.operate("GET", "/v1/dimensions/user/u")
        assert response.status_code == 503
        time.sleep(5)  # tries of inserts come and go
    finally:
        start_process(quiet, "engine")
    quiet.wait_ready(BACK_S)
    found = clients.settle(batch_ids, BACK_S)
    assert (found.received, found.stored, found.rejected) == (45, 15, 15)
    assert set(clients.events([event["mid"] for event in events])) == {event["mid"] for event in events}
    clients.wait_accounted()
    assert processes_of(quiet)["web"] == before


def test_what_no_worker_has_taken_up_is_in_flight(quiet: Pipeline, clients: Outside) -> None:
    """Neither lost nor unaccounted for, however long it takes."""
    clients.wait_accounted()
    stop_process(quiet, "validate")
    try:
        batch_ids = [clients.send([make_event(), make_event("LOG"), {"eid": "NOBODY"}]) for _ in range(7)]
        sql = "SELECT sum(in_flight) AS in_flight, sum(unaccounted) AS unaccounted FROM accounting"
        wait_until("all is in flight", lambda: clients.row(sql) == {"in_flight": 21, "unaccounted": 0})
        time.sleep(3)
        assert clients.row(sql) == {"in_flight": 21, "unaccounted": 0}
        lag = 'midstream_lag_records{group="midstream-validate",topic="telemetry.raw"}'
        wait_until("the lag is told", lambda: samples(metrics_of(quiet, "store").text)[lag] == 7)
        wait_until("/ready is 503", lambda: status(clients, "/ready") == 503, 20)
        assert clients.http.get("/ready").json()["parts"]["validate"] != "ok"
        assert status(clients, "/accepting") == 200
    finally:
        start_process(quiet, "validate")
    quiet.wait_ready(BACK_S)
    found = clients.settle(batch_ids)
    assert (found.stored, found.rejected) == (14, 7)
    clients.wait_accounted()


def test_a_killed_web_worker_is_replaced_and_costs_no_batch(quiet: Pipeline, clients: Outside) -> None:
    [victim, other] = web_workers(quiet)
    os.kill(victim, signal.SIGKILL)
    wait_until("it has been replaced", lambda: len(web_workers(quiet)) == 2 and victim not in web_workers(quiet), 20)
    assert other in web_workers(quiet)
    clients.settle([clients.send([make_event()])])
