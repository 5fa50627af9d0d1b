"""The steps of the drill."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from midstream.clickhouse.client import ClickHouseError
from tests.chaos.judge import Judgement, collect, judge
from tests.chaos.ledger import Sent
from tests.chaos.traffic import Traffic
from tests.chaos.world import BROKER, DEVICES, ENGINE, JOBS, WEB, Shape, World
from tests.drill.known import Known, command
from tests.support.waiting import wait_until

_POLL_S = 0.5
_SETTLE_S = 240.0
_COMPLETE_S = 120.0
_SAME_S = 120.0
_ERASED_S = 240.0
_PERSON_NUMBER = 10**8


@dataclass(frozen=True)
class Plan:
    """How large a drill is."""

    events_s: float = 400.0
    load_s: float = 8.0
    """How long load flows before the backup, and after it."""
    erases: bool = True
    loses_kafka: bool = True
    """Whether the second disaster follows."""
    seed: int = 1


@dataclass
class Report:
    """What happened. ``faults`` is empty when everything was as clients were told."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By step."""
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By disaster: the judge's."""
    lost: list[str] = field(default_factory=list)
    """What was not recoverable, in words."""
    faults: list[str] = field(default_factory=list)


class Drill:
    """One run, from an empty home to its report."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self.report = Report()

    def run(self) -> Report:
        """Run. Nothing is left behind."""
        shape = Shape(partitions=2)
        with (
            tempfile.TemporaryDirectory(prefix="midstream-drill-") as folder,
            World(shape) as world,
        ):
            with self._step("start"):
                world.start()
            traffic = Traffic(world.settings.port, world.token, self._plan.seed, self._plan.events_s)
            try:
                self._run(world, traffic, Path(folder))
            finally:
                traffic.abandon()
        return self.report

    def _run(self, world: World, traffic: Traffic, folder: Path) -> None:
        known = Known(world)
        self._send_person(world, traffic, known)
        traffic.start()
        known.write("before")
        time.sleep(self._plan.load_s)
        with self._step("backup, under load"):
            command(world, "backup", str(folder / "full"), "--with-key")
        known.write("since")
        late_token = command(world, "token", "create", "drill-late")
        if self._plan.erases:
            with self._step("erasure"):
                known.erase_person()
        time.sleep(self._plan.load_s)
        self._first_disaster(world, traffic, known, folder, late_token)
        if self._plan.loses_kafka:
            self._second_disaster(world, traffic, known, folder)

    def _first_disaster(self, world: World, traffic: Traffic, known: Known, folder: Path, late_token: str) -> None:
        """The home is lost but for Kafka's log and the collectors' spools: machines of their own in production."""
        traffic.pause()
        traffic.resend(0.05)
        self._lose(world, keep=("kafka", "spool", "logs", "run"))
        self._restore(world, folder / "full", "restore")
        with self._step("start and replay"):
            self._start(world)
            traffic.resume()
            time.sleep(self._plan.load_s / 2)
            traffic.pause()
            self._settle(world, traffic)
        if self._plan.erases:
            with self._step("the erased person is erased again"):
                self.report.faults += known.person_differences(_ERASED_S)
        self._judge(world, traffic, "home lost, Kafka kept")
        self._audit(world, [])
        self.report.faults += known.wait_same(known.state, _SAME_S)
        if known.operate("GET", "/v1/trace/none", token=late_token).status_code != 401:
            self.report.faults.append("a token that was made after the backup works: nobody could have known it")
        self.report.lost.append("home lost, Kafka kept: 1 token made after the backup (only the registry knew it)")

    def _second_disaster(self, world: World, traffic: Traffic, known: Known, folder: Path) -> None:
        """The home is lost with Kafka's log, too. What came after the backup is gone, and nothing claims otherwise."""
        with self._step("second backup, adding to the first"):
            command(world, "backup", str(folder / "added"), "--with-key", "--base", str(folder / "full"))
        wanted, before = known.snapshot(), set(traffic.ledger.batches)
        known.write("lost")
        traffic.resume()
        time.sleep(self._plan.load_s / 2)
        traffic.pause()
        lost = [traffic.ledger.batches[msgid] for msgid in traffic.ledger.batches.keys() - before]
        self._lose(world, keep=("logs", "run"))
        said = self._restore(world, folder / "added", "second restore")
        if "telemetry.raw" not in said["readers"]["other"]:
            self.report.faults.append(f"the restore did not notice that the topics are others: {said}")
        restored_at_ms = time.time_ns() // 1_000_000
        for sent in lost:  # nobody is asked for them again here; an app that has them still would send them
            sent.attempts = sent.acknowledged = 0
        with self._step("second start and replay"):
            self._start(world)
            traffic.resume()
            time.sleep(self._plan.load_s / 2)
            traffic.finish(0, _SETTLE_S)
            self._settle(world, traffic)
        self._judge(world, traffic, "home and Kafka lost")
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(restored_at_ms / 1000))
        self._audit(world, ["--from", since])
        self.report.faults += known.wait_same(wanted, _SAME_S)
        self.report.lost.append(
            f"home and Kafka lost: {sum(len(sent.mids) for sent in lost)} events of {len(lost)} batches received after "
            "the backup, with 4 devices' reports and learners' records"
        )

    # Steps

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._say(f"{name} ...")
        began = time.monotonic()
        yield
        self.report.seconds[name] = round(time.monotonic() - began, 1)

    def _send_person(self, world: World, traffic: Traffic, known: Known) -> None:
        body = known.person_batch()
        sent: Sent = traffic.ledger.add(_PERSON_NUMBER, body)
        headers = {"authorization": f"Bearer {world.token}", "content-type": "application/json"}
        url = f"http://127.0.0.1:{world.settings.port}/v1/telemetry"
        sent.attempts += 1
        reply = httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False)
        assert reply.status_code == 200, reply.text
        sent.acknowledged += 1

    def _lose(self, world: World, keep: tuple[str, ...]) -> None:
        """Kill everything at once, and lose the home but for some folders."""
        world.keeper.hold(*world.keeper.names())
        for path in world.root.iterdir():
            if path.name not in keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _restore(self, world: World, folder: Path, step: str) -> dict[str, Any]:
        with self._step(step):
            said: dict[str, Any] = json.loads(command(world, "restore", str(folder), "--json"))
        return said

    def _start(self, world: World) -> None:
        world.keeper.start(BROKER, ENGINE)
        world.wait_broker()
        world.wait_engine()
        world.keeper.start(*world.workers("validate"), *world.workers("store"), DEVICES, JOBS, WEB)
        world.wait_ready()

    def _settle(self, world: World, traffic: Traffic) -> None:
        """Wait until everything that was acknowledged is through."""

        def is_settled() -> bool:
            lag = world.ask(world.kafka.lag)
            if not isinstance(lag, dict) or any(lag.values()) or world.spooled_bytes():
                return False
            try:
                [(in_flight,)] = world.clickhouse.rows("SELECT sum(in_flight) FROM accounting")
                [(batches,)] = world.clickhouse.rows("SELECT count() FROM batches")
            except ClickHouseError:
                return False
            return not in_flight and batches >= traffic.ledger.acknowledged_batches

        wait_until("everything is through", is_settled, _SETTLE_S, _POLL_S)

    def _judge(self, world: World, traffic: Traffic, disaster: str) -> None:
        judgement: Judgement = judge(traffic.ledger, collect(world.clickhouse))
        self.report.counts[disaster] = judgement.as_json()
        self.report.faults += [f"{disaster}: {fault}" for fault in judgement.faults]

    def _audit(self, world: World, arguments: list[str]) -> None:
        sql = "SELECT (SELECT complete_until FROM complete_until) > (SELECT max(received_at) FROM batches)"
        wait_until("all is complete", lambda: world.clickhouse.rows(sql)[0][0], _COMPLETE_S, _POLL_S)
        with self._step("audit"):
            command(world, "audit", *arguments)  # which ends with 1 unless all is proven
