"""Devices' reports from Kafka to their state, while the worker is killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from midstream import topics
from midstream.devices.record import encode_report
from midstream.devices.report import Report, read_report
from midstream.devices.state import state_of
from midstream.devices.stored import read_state, read_statuses
from midstream.settings import Settings
from tests.integration.outside import Outside, Record, produce, start_process, stop_process, unique
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

DEVICES = 40
REPORTS = 60
KILLS = 3
VISIBLE_S = 2.0
SECOND_US = 1_000_000


@pytest.fixture(scope="module")
def clients(quiet: Pipeline) -> Iterator[Outside]:
    found = Outside(quiet)
    yield found
    found.close()


def stamp(at_us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).isoformat()


def make_reports(rng: random.Random, device: str, now_us: int) -> list[Report]:
    """Return receipts of a device's reports: late, repeated, ahead, without a time, with removals and overrides."""
    receipts = []
    for number in range(REPORTS):
        sent: dict[str, object] = {
            "status": rng.choice(["online", "offline", "error"]),
            "telemetries": {rng.choice("abcdefgh"): rng.choice([None, number, "x", True]) for _ in range(4)},
        }
        if rng.random() < 0.9:
            sent["timestamp"] = stamp(now_us + rng.randint(-600, 900) * SECOND_US)
        if rng.random() < 0.05:
            sent["override"] = True
        for copy in range(rng.choice([1, 1, 1, 2, 3])):
            received_us = now_us - rng.randint(0, 600) * SECOND_US
            receipts.append(read_report(device, sent, received_us, f"{device}.{number}.{copy}"))
    rng.shuffle(receipts)
    return receipts


def record(report: Report) -> Record:
    return Record(encode_report(report), report.device_id.encode())


def test_every_state_is_right_while_the_worker_is_killed(clients: Outside) -> None:
    pipeline = clients.pipeline
    rng = random.Random(7)
    now_us = time.time_ns() // 1_000
    by_device = {name: make_reports(rng, name, now_us) for name in (unique("device") for _ in range(DEVICES))}
    records = [record(report) for receipts in by_device.values() for report in receipts]
    rng.shuffle(records)
    bad = b"no report " + os.urandom(8)
    records.insert(len(records) // 2, Record(bad, b"nobody"))
    killed: list[int] = []
    sent = threading.Event()

    def kill() -> None:
        while len(killed) < KILLS or not sent.is_set():
            time.sleep(rng.uniform(0.5, 1.5))
            if len(killed) < KILLS + 3 and (pid := pipeline.pid_of("devices")) and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for start in range(0, len(records), 100):
            produce(pipeline, topics.DEVICE.name, records[start : start + 100])
    finally:
        sent.set()
        killer.join()
    assert len(killed) >= KILLS
    marker = unique("device")
    last = [
        Record(encode_report(read_report(marker, {"status": "online"}, now_us, f"{n}")), None, (), n) for n in (0, 1)
    ]
    produce(pipeline, topics.DEVICE.name, last)
    sql = "SELECT count() FROM device_history WHERE device_id = {device:String}"
    wait_until("all is through", lambda: clients.value(sql, device=marker) == len(last), 90)
    for device, receipts in by_device.items():
        assert read_state(clients.clickhouse.rows, device) == state_of(receipts)
    statuses = {device: state_of(receipts)["status"] for device, receipts in by_device.items()}
    assert read_statuses(clients.clickhouse.rows, by_device) == statuses
    parked = clients.rows(f"SELECT code, scope, events FROM rejects WHERE hex(raw) = '{bad.hex().upper()}'")
    assert parked == [{"code": "POISON", "scope": "batch", "events": 0}]
    pipeline.wait_ready()


def test_a_report_is_visible_soon(clients: Outside) -> None:
    clients.pipeline.wait_ready()
    took = []
    for number in range(8):
        device = unique("device")
        began = time.monotonic()
        report = read_report(device, {"status": "online", "telemetries": {"n": number}}, time.time_ns() // 1_000, "r")
        produce(clients.pipeline, topics.DEVICE.name, [record(report)])
        wait_until("it is there", lambda device=device: read_state(clients.clickhouse.rows, device), 20)  # type: ignore[misc]
        took.append(time.monotonic() - began)
    assert sorted(took)[len(took) // 2] < VISIBLE_S, took


def test_whoever_follows_does_not_hold_up_a_stop(quiet: Pipeline, clients: Outside) -> None:
    headers = {"authorization": f"Bearer {clients.operator}"}
    ended = threading.Event()
    began = threading.Event()

    def follow() -> None:
        with clients.http.stream("GET", "/v1/fleet/stream", headers=headers) as reply:
            assert reply.status_code == 200
            for _ in reply.iter_bytes():
                began.set()
        ended.set()

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        assert began.wait(10)
        asked_at = time.monotonic()
        stop_process(quiet, "web")
        took_s = time.monotonic() - asked_at
    finally:
        start_process(quiet, "web")
        reader.join(30)
        quiet.wait_ready()
    assert ended.is_set(), "the stream ended in order"
    assert took_s < Settings().drain_timeout_ms / 1000 - 2
