"""Kafka away while an app posts: everything it was told is safe is stored once, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ingest.spool.slot import MAX_SLOTS
from tests.integration.outside import (
    Event,
    Outside,
    make_body,
    make_event,
    start_process,
    stop_process,
    web_workers,
)
from tests.integration.test_probes import metrics_of, samples
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(400)

BACK_S = 90.0


@pytest.fixture
def clients(quiet: Pipeline) -> Iterator[Outside]:
    found = Outside(quiet)
    yield found
    found.close()


class App:
    """Posts in a thread, as the SDK does: each batch again until it is answered 200."""

    def __init__(self, clients: Outside) -> None:
        self._url = clients.pipeline.base_url
        self._headers = {"authorization": f"Bearer {clients.token}", "content-type": "application/json"}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.events: list[Event] = []
        """Those whose batch was answered 200."""
        self.batch_ids: list[str] = []
        self.refused: dict[int, int] = {}
        self.longest_s = 0.0

    @contextmanager
    def posting(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join(60)
            assert not self._thread.is_alive()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=30, trust_env=False) as http:
            while not self._ended.is_set():
                batch = [make_event(), make_event("LOG")]
                body = make_body(batch)
                while not self._post(http, body):
                    time.sleep(0.1)
                self.events += batch
                time.sleep(0.02)

    def _post(self, http: httpx.Client, body: bytes) -> bool:
        began = time.monotonic()
        try:
            response = http.post("/v1/telemetry", content=body)
        except httpx.HTTPError:
            return False
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        if response.status_code == 200:
            self.batch_ids.append(response.headers["x-batch-id"])
            return True
        self.refused[response.status_code] = self.refused.get(response.status_code, 0) + 1
        return False

    def wait_for(self, more: int) -> None:
        """Wait until so many batches more have been accepted."""
        goal = len(self.batch_ids) + more
        wait_until(f"{more} batches are accepted", lambda: len(self.batch_ids) >= goal, 60)


def spool_of(pipeline: Pipeline) -> Path:
    return pipeline.home.root / "spool"


def spooled(pipeline: Pipeline) -> float:
    return samples(metrics_of(pipeline, "web").text)["midstream_spool_batches"]


def check_stored_once(clients: Outside, app: App) -> None:
    found = clients.settle(app.batch_ids, BACK_S)
    # A batch whose answer was lost with a killed process came again: its first sending is no batch of ours.
    assert found.stored + found.duplicate == found.received == 2 * len(app.batch_ids)
    mids = {event["mid"] for event in app.events}
    assert len(mids) == 2 * len(app.batch_ids)
    for start in range(0, len(app.events), 1000):
        part = {event["mid"] for event in app.events[start : start + 1000]}
        assert set(clients.events(part)) == part
    clients.wait_accounted()


def test_kafka_away_and_web_workers_killed(quiet: Pipeline, clients: Outside) -> None:
    quiet.wait_ready()
    app = App(clients)
    with app.posting():
        app.wait_for(20)
        stop_process(quiet, "kafka")
        app.wait_for(40)
        wait_until("the spool is told", lambda: spooled(quiet) > 0, 10)
        page = samples(metrics_of(quiet, "web").text)
        assert page["midstream_spool_bytes"] > 0
        assert page["midstream_spool_oldest_age_seconds"] > 0
        assert page["midstream_spooled_batches_total"] > 0
        assert clients.http.get("/accepting").status_code == 200
        assert app.longest_s < 12  # nobody waits for Kafka longer than its time limit
        for _ in range(2):
            [victim, other] = web_workers(quiet)
            os.kill(victim, signal.SIGKILL)
            wait_until("it has been replaced", lambda: len(set(web_workers(quiet)) - {victim}) == 2, 30)  # noqa: B023
            app.wait_for(20)
            os.kill(other, signal.SIGKILL)
            wait_until("it has been replaced", lambda: len(set(web_workers(quiet)) - {other}) == 2, 30)  # noqa: B023
            app.wait_for(20)
        start_process(quiet, "kafka")
        quiet.wait_ready(BACK_S)
        app.wait_for(20)
    assert app.refused == {}
    wait_until("the spool is empty", lambda: not list(spool_of(quiet).glob("*/*.spool")), 60)
    wait_until("the metrics say so", lambda: spooled(quiet) == 0, 10)
    page = samples(metrics_of(quiet, "web").text)
    assert (page["midstream_spool_bytes"], page["midstream_spool_oldest_age_seconds"]) == (0, 0)
    assert page["midstream_spool_drained_batches_total"] > 0
    assert page["midstream_spool_damaged_bytes_total"] == 0
    check_stored_once(clients, app)
    sources = clients.rows(
        "SELECT source, count() AS n FROM batches WHERE batch_id IN {ids:Array(String)} GROUP BY source",
        ids=app.batch_ids,
    )
    assert {row["source"] for row in sources} == {"http", "spool"}
    assert len([path for path in spool_of(quiet).iterdir() if int(path.name) < MAX_SLOTS]) <= 4


def test_everything_killed_with_a_full_spool_and_started_again(quiet: Pipeline, clients: Outside) -> None:
    quiet.wait_ready()
    app = App(clients)
    with app.posting():
        app.wait_for(5)
        stop_process(quiet, "kafka")
        app.wait_for(60)
    quiet.kill("web")
    quiet.kill_launcher()
    quiet.wait_gone(60)
    assert list(spool_of(quiet).glob("*/*.spool"))
    quiet.start()
    quiet.wait_ready(BACK_S)
    wait_until("the spool is empty", lambda: not list(spool_of(quiet).glob("*/*.spool")), 60)
    check_stored_once(clients, app)
