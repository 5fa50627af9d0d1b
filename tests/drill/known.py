"""What clients of the drill's pipeline know besides events: objects, devices, learners' records, an erased user.

Each part is written and compared over the APIs, or in ClickHouse as analysts read it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from midstream import topics
from midstream.devices.record import encode_report
from midstream.devices.report import Report, read_report
from midstream.devices.state import state_of
from midstream.devices.stored import read_state
from tests.chaos.world import World
from tests.support.pipeline import ROOT
from tests.support.waiting import wait_until

_COMMAND_S = 240.0
_ERASE_S = 240.0
_STORED_S = 60.0
_POLL_S = 0.3
_PERSON = "drill-person"
_PERSON_MID = "START:drill-person"


class CommandError(Exception):
    """A command of ``midstream`` ended with another exit code than 0."""


def command(world: World, *arguments: str) -> str:
    """Run ``midstream`` on the home; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "midstream.cli", *arguments],
        cwd=ROOT,
        env=world.client_env(),
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )
    if done.returncode:
        raise CommandError(
            f"midstream {' '.join(arguments)}: {done.returncode}\n{done.stdout[-500:]}{done.stderr[-2_000:]}"
        )
    return done.stdout.strip()


@dataclass
class State:
    """What clients were told last."""

    dimensions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Attributes by id of content."""
    reports: dict[str, list[Report]] = field(default_factory=dict)
    """By device."""
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Replies by asset."""


class Known:
    """Writes, and remembers what it was told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._base = f"http://127.0.0.1:{world.settings.port}"
        self.operator = command(world, "token", "create", "drill-operator", "--role", "operator")
        self._academy = command(world, "academy", "create", "Drill")
        self._teacher = command(world, "user", "create", "Teacher")
        self._user_token = command(world, "user", "token", self._teacher)
        command(world, "role", "grant", self._teacher, self._academy, "crud_telemetry")
        self.state = State()

    def write(self, part: str) -> None:
        """Write objects, devices' reports and learners' records, of which ``part`` names those that nobody wrote
        before."""
        state = self.state
        for id_ in ("first", part):
            attributes = {"name": f"{id_} {part}"}
            assert self.operate("PUT", f"/v1/dimensions/content/{id_}", attributes).status_code == 200
            state.dimensions[id_] = attributes
            device = f"device-{id_}"
            report = {"status": "online", "telemetries": {part: 1, "last": part}}
            read = read_report(device, report, time.time_ns() // 1_000, f"{device}.{part}")
            state.reports.setdefault(device, []).append(read)
            asyncio.run(self._produce(device, read))
            fields = {"engagement_score": 10 + len(state.records), "metrics": {"part": part}}
            reply = self._learn("PUT" if id_ in state.records else "POST", id_, fields)
            assert reply.status_code in (200, 201), reply.text
            state.records[id_] = reply.json()

    def snapshot(self) -> State:
        """Return what is known now."""
        return copy.deepcopy(self.state)

    def person_batch(self) -> bytes:
        """Return a batch with an event of the person who is to be erased."""
        event = {
            "eid": "START",
            "ets": time.time_ns() // 1_000_000,
            "ver": "3.0",
            "mid": _PERSON_MID,
            "actor": {"id": _PERSON, "type": "User"},
            "context": {"channel": "drill", "env": "drill"},
            "edata": {"type": "app"},
        }
        return json.dumps({"params": {"msgid": "drill-person"}, "events": [event]}).encode()

    def erase_person(self) -> None:
        """Have the person erased, whose event is stored."""
        stored = "SELECT count() FROM events WHERE actor_id = {id:String}"
        rows = self._world.clickhouse.rows
        wait_until("the person's event is stored", lambda: rows(stored, {"id": _PERSON})[0][0] == 1, _STORED_S)
        reply = self.operate("DELETE", f"/v1/dimensions/user/{_PERSON}?erase=true")
        assert reply.status_code == 202, reply.text
        job = f"/v1/sync/{reply.json()['node_id']}"

        def status() -> str:
            return str(self.operate("GET", job).json()["status"])

        wait_until("the person is erased", lambda: status() in ("done", "failed"), _ERASE_S, 0.3)
        assert status() == "done", self.operate("GET", job).text

    def differences(self, wanted: State) -> list[str]:
        """Return in words what is not as clients were told."""
        found: list[str] = []
        for id_, attributes in wanted.dimensions.items():
            reply = self.operate("GET", f"/v1/dimensions/content/{id_}")
            if reply.status_code != 200 or reply.json()["attributes"] != attributes:
                found.append(f"object {id_}: {reply.status_code} {reply.text[:200]}, wanted {attributes}")
        for device, reports in wanted.reports.items():
            state = read_state(self._world.clickhouse.rows, device)
            if state != state_of(reports):
                found.append(f"{device}: {state}, wanted {state_of(reports)}")
        for asset, record in wanted.records.items():
            reply = self._learn("GET", asset)
            if reply.status_code != 200 or reply.json() != record:
                found.append(f"record {asset}: {reply.status_code} {reply.text[:300]}, wanted {record}")
        return found

    def wait_same(self, wanted: State, timeout_s: float) -> list[str]:
        """Wait until everything is as clients were told; return what is not in time."""
        deadline = time.monotonic() + timeout_s
        while (found := self.differences(wanted)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return found

    def person_differences(self, timeout_s: float) -> list[str]:
        """Wait until the erased person is named nowhere, and counted once all the same; return what is not in time."""
        deadline = time.monotonic() + timeout_s
        # Not by the view, which shows the person's rows no more while they are being removed.
        sql = (
            "SELECT countIf(actor_id = {id:String} OR position(raw, {id:String}) > 0), count() FROM learning_events "
            "WHERE mid = {mid:String}"
        )
        while True:
            [(named, stored)] = self._world.clickhouse.rows(sql, {"id": _PERSON, "mid": _PERSON_MID})
            if (named, stored) == (0, 1):
                return []
            if time.monotonic() > deadline:
                return [f"the erased person is named by {named} of {stored} events"]
            time.sleep(_POLL_S)

    def operate(self, method: str, path: str, body: Any = None, *, token: str = "") -> httpx.Response:
        """Call the API with an operator's token."""
        headers = {"authorization": f"Bearer {token or self.operator}"}
        return httpx.request(method, self._base + path, headers=headers, json=body, timeout=30, trust_env=False)

    def _learn(self, method: str, asset: str, body: Any = None) -> httpx.Response:
        path = f"/v1/assignment/academy/asset/{asset}/user/{self._teacher}/telemetry"
        headers = {"authorization": f"Token {self._user_token}", "academy": self._academy}
        return httpx.request(method, self._base + path, headers=headers, json=body, timeout=30, trust_env=False)

    async def _produce(self, device: str, report: Report) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._world.settings.kafka_servers, acks="all")
        await producer.start()
        try:
            await producer.send_and_wait(topics.DEVICE.name, encode_report(report), device.encode())
        finally:
            await producer.stop()
