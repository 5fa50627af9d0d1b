"""Two versions side by side under load, process by process and back again: nothing is lost, doubled or refused.

docs/upgrading.md says what is done here, in words.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from midstream import topics
from midstream.kafka.admin import member_ids
from tests.integration.checkouts import COLOUR, copy_present, make_later, unpack_revision, why_no_revision
from tests.integration.extra import Extra
from tests.integration.fleet import EVENTS, Fleet, Ledger
from tests.integration.outside import Outside, run_apart, run_cli, start_process, stop_process, unique
from tests.integration.test_growth import ask_kafka
from tests.support.pipeline import Pipeline
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

FIRST = "b8ea11c"
"""The last revision whose processes know nothing of the topic ``schemas``."""

PARTITIONS = 4
_SETTINGS = {"partitions": PARTITIONS, "kafka_session_timeout_ms": 8_000, "web_workers": 1}
_BATCHES = 20
_THROUGH_S = 120.0
_PAUSE_S = 0.7
_MAX_WAITING = 12


class Upgrade:
    """A pipeline of one version, and processes of the next one beside it."""

    def __init__(self, pipeline: Pipeline, new: Path) -> None:
        self.pipeline = pipeline
        self.clients = Outside(pipeline)
        self.new = new
        self._workers = {stage: Extra(pipeline, stage, new) for stage in ("validate", "store")}
        self._collector: subprocess.Popen[bytes] | None = None
        self._collector_port = 0
        self.sent: dict[str, Ledger] = {}
        self._stopped = threading.Event()
        self._trouble: list[BaseException] = []

    def migrate(self) -> str:
        """The first step: what the new version needs of tables and topics."""
        done = subprocess.run(
            [sys.executable, "-m", "midstream.cli", "migrate"],
            cwd=self.new,
            env={**self.pipeline.env, "PYTHONPATH": str(self.new)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def add_new(self, stage: str) -> None:
        """Start a worker of the new version."""
        members = self._members(stage)
        self._workers[stage].start()

        def has_joined() -> bool:
            self._workers[stage].keep()
            return self._members(stage) == members + 1

        wait_until(f"{stage} of the new version has joined", has_joined, _THROUGH_S, 0.2)

    def remove_new(self, stage: str) -> None:
        """Stop it."""
        self._workers[stage].stop()

    def add_old(self, stage: str) -> None:
        """Start the worker of the old version."""
        start_process(self.pipeline, stage)

    def remove_old(self, stage: str) -> None:
        """Stop it."""
        stop_process(self.pipeline, stage)

    def _members(self, stage: str) -> int:
        group = {"validate": topics.GROUP_VALIDATE, "store": topics.GROUP_STORE}[stage]
        return len(ask_kafka(self.pipeline, lambda admin: member_ids(admin, group)))

    def add_new_collector(self) -> None:
        """Start a collector of the new version, on a port of its own."""
        [self._collector_port] = free_ports(1)
        env = {
            **self.pipeline.env,
            "PYTHONPATH": str(self.new),
            "MIDSTREAM_HOME": str(self.pipeline.home.root),
            "MIDSTREAM_PORT": str(self._collector_port),
        }
        with (self.pipeline.home.logs / "collector-new.log").open("ab") as output:
            self._collector = subprocess.Popen(
                [sys.executable, "-m", "ingest"], cwd=self.new, env=env, stdout=output, stderr=output
            )

        def accepts() -> bool:
            try:
                url = f"http://127.0.0.1:{self._collector_port}/accepting"
                return bool(self.clients.http.get(url).status_code == 200)
            except httpx.TransportError:
                return False

        wait_until("the collector of the new version accepts", accepts, _THROUGH_S, 0.2)

    def send(self, name: str, *, to_new: bool = False, batches: int = _BATCHES) -> None:
        """Send batches under a name, to the old collector or the new one."""
        url = f"http://127.0.0.1:{self._collector_port}" if to_new else self.pipeline.base_url
        fleet = Fleet(url, self.clients.token, unique(name), batches, connections=2)
        self.sent[name] = run_apart(fleet.run())

    @contextmanager
    def constant_load(self) -> Iterator[None]:
        """Send a batch or two all the time, whatever is stopped and started meanwhile."""

        def run() -> None:
            try:
                for number in range(10_000):
                    if self._stopped.wait(_PAUSE_S):
                        return
                    # No faster than this machine stores: what is tested is not how long a backlog takes.
                    if len(self._waiting()) <= _MAX_WAITING:
                        self.send(f"load-{number}", batches=2)
            except BaseException as error:  # noqa: BLE001 - raised in the test's thread
                self._trouble.append(error)

        thread = threading.Thread(target=run, name="load")
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join(60)
        assert not thread.is_alive()
        assert not self._trouble, self._trouble

    def wait_through(self) -> None:
        """Wait until all that was sent so far is stored."""
        sent = set(self.sent)

        def through() -> bool:
            for worker in self._workers.values():
                worker.keep()
            return not sent & self._waiting()

        wait_until("all that was sent is stored", through, _THROUGH_S, 0.3)

    def _waiting(self) -> set[str]:
        """Return the names under which something was sent that is not stored yet."""
        sent = dict(self.sent)
        rows = self.clients.rows(
            "SELECT channel, count() AS events FROM events WHERE channel IN {channels:Array(String)} GROUP BY ALL",
            channels=[ledger.channel for ledger in sent.values()],
        )
        found = {row["channel"]: row["events"] for row in rows}
        return {name for name, ledger in sent.items() if found.get(ledger.channel, 0) < ledger.valid}

    def colours(self, name: str) -> set[str]:
        """Return what the column of the new version says of the events that were sent under this name."""
        found: set[str] = set()
        for table in ("learning_events", "operational_events"):
            sql = f"SELECT DISTINCT colour FROM {table} WHERE channel = {{channel:String}}"
            found |= {row["colour"] for row in self.clients.rows(sql, channel=self.sent[name].channel)}
        return found

    def check(self) -> None:
        """Each event that was sent is there once, and nothing else happened to any."""
        self.wait_through()
        self.clients.wait_accounted(_THROUGH_S)
        channels = [ledger.channel for ledger in self.sent.values()]
        here = "WHERE channel IN {channels:Array(String)}"
        row = self.clients.row(
            f"SELECT (SELECT count() FROM events {here}) AS stored, "
            f"(SELECT uniqExact(mid) FROM events {here}) AS mids, "
            f"(SELECT count() FROM rejects {here}) AS refused, (SELECT count() FROM duplicates {here}) AS doubled, "
            "(SELECT count() FROM rejects WHERE code = 'POISON') AS parked",
            channels=channels,
        )
        valid = sum(ledger.valid for ledger in self.sent.values())
        invalid = sum(ledger.invalid for ledger in self.sent.values())
        resent = sum(ledger.resent for ledger in self.sent.values())
        assert {status for ledger in self.sent.values() for status in ledger.statuses} == {200}
        # A fleet sends a batch without a bad event twice.
        counts = {"stored": valid, "mids": valid, "refused": invalid, "doubled": EVENTS * resent, "parked": 0}
        assert row == counts
        wait_until("there is something to prove", self._has_complete, _THROUGH_S, 0.5)
        self.clients.cli("audit")

    def _has_complete(self) -> bool:
        """Whether the collectors' marks have passed what was received first; until then an audit proves nothing."""
        return "nothing can be proven" not in run_cli(self.clients.pipeline, "audit").stderr

    def close(self) -> None:
        """Stop what was started here."""
        for worker in self._workers.values():
            worker.stop()
        if self._collector is not None:
            self._collector.send_signal(signal.SIGTERM)
            try:
                self._collector.wait(20)
            except subprocess.TimeoutExpired:
                os.kill(self._collector.pid, signal.SIGKILL)
                self._collector.wait()
        self.clients.close()


@contextmanager
def upgrading(home: Path, old: Path, new: Path) -> Iterator[Upgrade]:
    with Pipeline(home, root=old, **_SETTINGS) as running:
        upgrade = Upgrade(running, new)
        try:
            yield upgrade
        finally:
            upgrade.close()


@pytest.mark.timeout(600)
def test_a_later_version_comes_in_any_order_and_goes_again(tmp_path: Path) -> None:
    old, new = copy_present(tmp_path / "old"), make_later(copy_present(tmp_path / "new"))
    with upgrading(tmp_path / "home", old, new) as upgrade:
        with upgrade.constant_load():
            upgrade.send("before")
            upgrade.wait_through()
            assert "_colour" in upgrade.migrate()
            upgrade.send("migrated")

            # Store first.
            upgrade.add_new("store")
            upgrade.send("both-stores")
            upgrade.remove_old("store")
            upgrade.send("new-store")
            upgrade.wait_through()
            upgrade.add_new("validate")
            upgrade.add_new_collector()
            upgrade.send("both-validates")
            upgrade.send("new-collector", to_new=True)
            upgrade.remove_old("validate")
            upgrade.wait_through()
            upgrade.send("all-new")
            upgrade.wait_through()

            # Validate first, from the other side: the old store comes back, and reads what it does not know.
            upgrade.add_old("store")
            upgrade.remove_new("store")
            upgrade.send("old-store-behind-new-validate")
            upgrade.wait_through()

            # All of it back.
            upgrade.add_old("validate")
            upgrade.remove_new("validate")
            time.sleep(1.5)
            upgrade.wait_through()
            upgrade.send("rolled-back")
            upgrade.wait_through()
        upgrade.check()
        for name in ("before", "migrated", "both-stores", "new-store", "rolled-back"):
            assert upgrade.colours(name) == {"none"}, name
        for name in ("all-new", "old-store-behind-new-validate"):
            assert upgrade.colours(name) == {COLOUR}, name
        assert "schema.learned" in upgrade.pipeline.log_of("store")


@pytest.mark.skipif(bool(why_no_revision(FIRST)), reason=why_no_revision(FIRST))
@pytest.mark.timeout(600)
def test_the_version_that_knows_nothing_of_schemas_is_upgraded(tmp_path: Path) -> None:
    """Topics first, then workers, then the collector; and back to the workers of before."""
    old, new = unpack_revision(FIRST, tmp_path / "old"), copy_present(tmp_path / "new")
    with upgrading(tmp_path / "home", old, new) as upgrade:
        with upgrade.constant_load():
            upgrade.send("before")
            assert "topics are there" in upgrade.migrate()
            upgrade.add_new("store")
            upgrade.send("both-stores")
            upgrade.remove_old("store")
            upgrade.add_new("validate")
            upgrade.send("both-validates")
            upgrade.remove_old("validate")
            upgrade.add_new_collector()
            upgrade.send("all-new", to_new=True)
            upgrade.wait_through()
            upgrade.add_old("store")
            upgrade.remove_new("store")
            upgrade.add_old("validate")
            upgrade.remove_new("validate")
            upgrade.send("rolled-back")
            upgrade.wait_through()
        upgrade.check()
