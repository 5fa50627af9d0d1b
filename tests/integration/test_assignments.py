"""Learners' records on a running pipeline: the command, both processes of the api, Kafka, and a kill."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from midstream.records import decode_record
from midstream.topics import ASSIGNMENT
from tests.integration.outside import Outside, run_apart, unique, web_workers
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

LEARNER = 5
LATE_S = 90.0
"""How long what a process left may take until another publishes it."""


class Platform:
    """A learning platform, with an academy of its own."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        first = str(random.randrange(10**12, 10**13))  # far from those that other tests name
        self.academy = int(outside.cli("academy", "create", unique("Academy"), "--id", first))
        self.teacher = int(outside.cli("user", "create", "Teacher", "--id", first))
        self.learner = int(outside.cli("user", "create", "Learner"))
        assert self.learner > self.teacher
        self.token = outside.cli("user", "token", str(self.teacher)).strip()
        outside.cli("role", "grant", str(self.teacher), str(self.academy), "crud_telemetry")

    def path(self, asset: str, user: int | None = None) -> str:
        return f"/v1/assignment/academy/asset/{asset}/user/{user or self.learner}/telemetry"

    def send(self, method: str, asset: str, body: Any = None, *, anew: bool = False) -> httpx.Response:
        """Send a request; ``anew`` by a connection of its own, which either process may take."""
        headers = {"authorization": f"Token {self.token}", "academy": str(self.academy)}
        content = None if body is None else json.dumps(body)
        if anew:
            url = self.outside.pipeline.base_url + self.path(asset)
            return httpx.request(method, url, headers=headers, content=content, timeout=30, trust_env=False)
        return self.outside.http.request(method, self.path(asset), headers=headers, content=content)


@pytest.fixture(scope="module")
def platform(outside: Outside) -> Platform:
    return Platform(outside)


def published(pipeline: Pipeline, academy: int) -> list[dict[str, Any]]:
    """Return all events of an academy that are on Kafka now."""

    async def read() -> list[dict[str, Any]]:
        consumer = AIOKafkaConsumer(
            ASSIGNMENT.name,
            bootstrap_servers=pipeline.kafka_servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            events: list[dict[str, Any]] = []
            while any([await consumer.position(part) < end for part, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    events += [{**decode_record(ASSIGNMENT.name, one.value), "key": one.key} for one in records]
            return [one for one in events if one["academy_id"] == academy]
        finally:
            await consumer.stop()

    found: list[dict[str, Any]] = run_apart(asyncio.wait_for(read(), 30))
    return found


def test_a_platform_is_set_up_by_the_command_and_its_writes_are_everywhere(platform: Platform) -> None:
    asset = unique("asset")
    assert platform.send("PUT", asset, {}).status_code == 404
    made = platform.send("POST", asset, {"telemetry": {"steps": []}, "engagement_score": 5})
    assert made.status_code == 201, made.text
    updated = platform.send("PUT", asset, {"engagement_score": None, "total_time": "PT1H"})
    assert updated.status_code == 200
    outside = platform.outside
    row = outside.row("SELECT * FROM assignment_telemetry WHERE asset_slug = {asset:String}", asset=asset)
    assert (row["id"], row["engagement_score"], row["total_time"]) == (made.json()["id"], None, "01:00:00")

    def events() -> list[dict[str, Any]]:
        return [one for one in published(outside.pipeline, platform.academy) if one["asset_slug"] == asset]

    first, second = wait_until("both are published", lambda: found if len(found := events()) >= 2 else None)
    assert first["key"] == f"{platform.academy}/{platform.learner}/{asset}".encode() == second["key"]
    assert (first["fields"], first["telemetry"]) == (["telemetry", "engagement_score"], '{"steps": []}')
    assert (second["fields"], second["engagement_score"]) == (["engagement_score", "total_time"], None)
    assert second["total_time_us"] == 3_600_000_000
    assert first["version"] < second["version"]


def test_every_process_sees_what_another_wrote_and_ended(platform: Platform) -> None:
    asset = unique("asset")
    platform.send("POST", asset, {})
    for number in range(20):
        name = ("engagement_score", "completion_rate")[number % 2]
        reply = platform.send("PUT", asset, {name: number}, anew=True).json()
        assert reply[name] == number
        if number:
            assert reply[("completion_rate", "engagement_score")[number % 2]] == number - 1
        assert platform.send("GET", asset, anew=True).json() == reply
    platform.outside.cli("user", "revoke", str(platform.teacher))
    time.sleep(1.1)
    for _ in range(6):
        assert platform.send("GET", asset, anew=True).status_code == 401
    platform.token = platform.outside.cli("user", "token", str(platform.teacher)).strip()
    platform.outside.cli("academy", "set", str(platform.academy), "--status", "inactive")
    time.sleep(1.1)
    for _ in range(6):
        assert platform.send("GET", asset, anew=True).json()["detail"] == "This academy is not active"
    platform.outside.cli("academy", "set", str(platform.academy), "--status", "active")
    time.sleep(1.1)


@pytest.fixture
def stopped_kafka(quiet: Pipeline) -> Iterator[int]:
    """Kafka stands still until the test lets it go on."""
    pid = quiet.pid_of("kafka")
    os.kill(pid, signal.SIGSTOP)
    yield pid
    os.kill(pid, signal.SIGCONT)
    quiet.wait_ready()


def test_what_was_stored_when_the_api_was_killed_is_published_all_the_same(quiet: Pipeline, stopped_kafka: int) -> None:
    with closing(Outside(quiet)) as outside:
        platform = Platform(outside)
        replies = [platform.send("POST", f"asset-{number}", {"completion_rate": number}) for number in range(20)]
        assert [reply.status_code for reply in replies] == [201] * 20, "no write waits for Kafka"
        before = web_workers(quiet)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        os.kill(stopped_kafka, signal.SIGCONT)

        def is_back() -> bool:
            now = web_workers(quiet)
            return len(now) == len(before) and not set(now) & set(before)

        wait_until("web is back", is_back, 60)
        quiet.wait_ready()
        assert platform.send("GET", "asset-7", anew=True).json()["completion_rate"] == 7.0

        def rates() -> set[float]:
            return {one["completion_rate"] for one in published(quiet, platform.academy)}

        wait_until("all are published", lambda: rates() == set(map(float, range(20))), LATE_S, 1.0)
