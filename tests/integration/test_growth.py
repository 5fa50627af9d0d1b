"""``telemetry.valid`` is given more partitions under load, with several workers: every mid once all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.kafka.admin import add_partitions, committed_offsets, member_ids, partitions_of_topics
from midstream.kafka.sealing import numbers_of
from tests.integration.extra import Extra
from tests.integration.fleet import EVENTS, INVALID_EVERY, Fleet
from tests.integration.outside import Outside, run_apart, start_process, stop_process, unique
from tests.support.pipeline import ROOT, Pipeline
from tests.support.waiting import wait_until

PARTITIONS = 4
BATCHES = 200
MORE_S = 240.0
_SHORT_WAITS = {"kafka_session_timeout_ms": 6_000, "kafka_timeout_ms": 5_000}
"""A growth waits for as long as a worker that was cut off can live, which follows from these."""
_PAUSE_S = 1.0
"""Nothing is sealed for twenty seconds of a growth: what is sent meanwhile should be load, and no backlog of
minutes."""

MIDDLE = (topics.VALID.name, topics.DEAD.name)


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline(tmp_path_factory.mktemp("growth") / "home", partitions=PARTITIONS, **_SHORT_WAITS) as running:
        yield running


@pytest.fixture(scope="module")
def clients(growing: Pipeline) -> Iterator[Outside]:
    found = Outside(growing)
    yield found
    found.close()


@pytest.fixture(scope="module")
def extras(growing: Pipeline) -> Iterator[dict[str, Extra]]:
    """A second worker of each stage."""
    found = {stage: Extra(growing, stage) for stage in ("validate", "store")}
    for extra in found.values():
        extra.start()
    ask = lambda group: ask_kafka(growing, lambda admin: member_ids(admin, group))  # noqa: E731
    try:
        for group in (topics.GROUP_VALIDATE, topics.GROUP_STORE):
            wait_until(f"{group} has two members", lambda group=group: len(ask(group)) == 2, 120, 0.5)
        yield found
    finally:
        for extra in found.values():
            extra.stop()


class Traffic:
    """The same mids again and again, over all that happens; counts what was acknowledged."""

    def __init__(self, clients: Outside) -> None:
        self._clients = clients
        self.channel = unique("growth")
        self.acknowledged = 0
        self.rejected = 0
        self.valid = BATCHES * EVENTS - BATCHES * EVENTS // INVALID_EVERY

    def send(self, batches: int = BATCHES) -> None:
        """Send the first so many batches."""
        pipeline = self._clients.pipeline
        fleet = Fleet(pipeline.base_url, self._clients.token, self.channel, batches, connections=4)
        ledger = run_apart(fleet.run())
        # Every attempt has its reply, so that what was received is known exactly.
        assert ledger.attempts == sum(ledger.statuses.values())
        assert 0 not in ledger.statuses
        self.acknowledged += ledger.acknowledged
        self.rejected += ledger.invalid  # a batch that is sent twice has no bad event

    def check(self) -> None:
        """Each valid mid is stored once; all other arrivals are duplicates or rejects; nothing is unaccounted."""
        clients, here = self._clients, {"channel": self.channel}

        def received() -> int:
            sql = "SELECT sum(received) FROM accounting WHERE channel = {channel:String}"
            return int(clients.value(sql, **here) or 0)

        arrivals = self.acknowledged * EVENTS
        wait_until(f"all {arrivals} arrivals are counted", lambda: received() >= arrivals, 240, 0.5)
        clients.wait_accounted(240)
        row = clients.row(
            "SELECT count() AS rows, uniqExact(mid) AS mids FROM events WHERE channel = {channel:String}", **here
        )
        assert row == {"rows": self.valid, "mids": self.valid}
        row = clients.row(
            "SELECT sum(received) AS received, sum(stored) AS stored, sum(duplicate) AS duplicate,"
            " sum(rejected) AS rejected FROM accounting WHERE channel = {channel:String}",
            **here,
        )
        assert row == {
            "received": arrivals,
            "stored": self.valid,
            "duplicate": arrivals - self.rejected - self.valid,
            "rejected": self.rejected,
        }


@pytest.fixture(scope="module")
def traffic(clients: Outside) -> Traffic:
    return Traffic(clients)


def ask_kafka(pipeline: Pipeline, question: Any) -> Any:
    async def ask() -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.kafka_servers)
        await admin.start()
        try:
            return await question(admin)
        finally:
            await admin.close()

    return run_apart(ask())


def sealing(pipeline: Pipeline) -> list[int]:
    ids = ask_kafka(pipeline, lambda admin: member_ids(admin, topics.GROUP_VALIDATE))
    return sorted(numbers_of(ids).values())


def partitions(pipeline: Pipeline) -> dict[str, int]:
    found: dict[str, int] = ask_kafka(pipeline, partitions_of_topics)
    return found


def used(clients: Outside) -> set[int]:
    """Return under how many partitions the blocks were sealed that have been stored."""
    return {row["partitions"] for row in clients.rows("SELECT DISTINCT partitions FROM block_rows")}


def is_through(pipeline: Pipeline) -> bool:
    """Whether `store` has committed all there is."""

    async def ends() -> dict[TopicPartition, int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=pipeline.kafka_servers)
        await consumer.start()
        try:
            found = partitions(pipeline)
            places = [TopicPartition(name, number) for name in MIDDLE for number in range(found[name])]
            return dict(await consumer.end_offsets(places))
        finally:
            await consumer.stop()

    stored = ask_kafka(pipeline, lambda admin: committed_offsets(admin, topics.GROUP_STORE))
    return all(stored.get(tp, 0) >= end for tp, end in run_apart(ends()).items())


def set_back(pipeline: Pipeline, group: str, names: tuple[str, ...]) -> None:
    """Set a group without members to the beginning of these topics."""
    found = partitions(pipeline)

    async def commit() -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=pipeline.kafka_servers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            places = [TopicPartition(name, number) for name in names for number in range(found[name])]
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))
        finally:
            await consumer.stop()

    ask = lambda: ask_kafka(pipeline, lambda admin: member_ids(admin, group))  # noqa: E731
    wait_until("the group has no members", lambda: not ask(), 40, 0.5)
    run_apart(commit())


def grow_meanwhile(clients: Outside, traffic: Traffic, extras: dict[str, Extra], grow: Any) -> None:
    """Grow in one thread, send in another, and keep the second validate alive, until the growth is done."""
    with ThreadPoolExecutor(1) as pool:
        growth = pool.submit(grow)
        deadline = time.monotonic() + MORE_S
        while not growth.done():
            assert time.monotonic() < deadline
            traffic.send(40)
            extras["validate"].keep()
            time.sleep(_PAUSE_S)
        growth.result()


@pytest.mark.timeout(900)
def test_growth_by_the_command_under_load(clients: Outside, extras: dict[str, Extra], traffic: Traffic) -> None:
    pipeline = clients.pipeline
    traffic.send()

    def grow() -> None:
        done = subprocess.run(
            [sys.executable, "-m", "midstream.cli", "partitions", "grow", "8", "--timeout", "200"],
            cwd=ROOT,
            env=pipeline.env,
            capture_output=True,
            text=True,
            timeout=MORE_S,
        )
        assert done.returncode == 0, done.stderr
        assert "seal under 8 partitions" in done.stderr

    grow_meanwhile(clients, traffic, extras, grow)
    wait_until("both validate workers seal under 8", lambda: sealing(pipeline) == [8, 8], 120, 0.5)
    traffic.send()
    traffic.check()
    assert used(clients) == {4, 8}
    assert "PartitionsChangedError" in pipeline.log_of("validate")
    listed = [line.split() for line in clients.cli("partitions", "list").splitlines()[1:]]
    assert listed == [[topic.name, str(8 if topic is topics.VALID else PARTITIONS)] for topic in topics.ALL]


@pytest.mark.timeout(900)
def test_growth_that_nobody_announced_while_a_worker_is_frozen(
    clients: Outside, extras: dict[str, Extra], traffic: Traffic
) -> None:
    """Grown by Kafka's own tools; a frozen worker wakes up when the others seal under the new number."""
    pipeline = clients.pipeline
    wait_until("both validate workers seal under 8", lambda: sealing(pipeline) == [8, 8], 120, 0.5)
    frozen = extras["validate"]
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(traffic.send, 100)
        time.sleep(0.3)
        frozen.signal(signal.SIGSTOP)
        sending.result()
    ask_kafka(pipeline, lambda admin: add_partitions(admin, topics.VALID.name, 12))
    traffic.send(100)
    wait_until("the other one seals under 12", lambda: sealing(pipeline) == [12], 240, 0.5)
    traffic.send()
    frozen.signal(signal.SIGCONT)
    wait_until("the frozen one has ended itself", frozen.ended, 30)
    frozen.start()
    wait_until("both seal under 12", lambda: sealing(pipeline) == [12, 12], 120, 0.5)
    traffic.send()
    traffic.check()
    assert used(clients) == {4, 8, 12}


@pytest.mark.timeout(900)
def test_everything_is_read_again_after_growth(clients: Outside, extras: dict[str, Extra], traffic: Traffic) -> None:
    """Blocks of all numbers side by side, in two store workers, and validate killed in the midst of it."""
    pipeline = clients.pipeline
    wait_until("all is through", lambda: is_through(pipeline), 120, 0.5)
    extras["store"].stop()
    stop_process(pipeline, "store")
    traffic.send(100)
    set_back(pipeline, topics.GROUP_STORE, MIDDLE)
    start_process(pipeline, "store")
    extras["store"].start()
    os.kill(pipeline.pid_of("validate"), signal.SIGKILL)
    traffic.send(100)
    wait_until("everything has been read again", lambda: is_through(pipeline), 240, 0.5)
    pipeline.wait_ready()
    traffic.check()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("topic", [topics.RAW.name, topics.DEAD.name])
def test_the_other_topics_grow_at_any_time(
    clients: Outside, extras: dict[str, Extra], traffic: Traffic, topic: str
) -> None:
    pipeline = clients.pipeline
    number = partitions(pipeline)[topics.VALID.name]
    clients.cli("partitions", "grow", "6", "--topic", topic)
    assert partitions(pipeline)[topic] == 6
    traffic.send()
    traffic.check()
    # A worker that Kafka has not heard of for a while is out of the group until it joins again. One that another test
    # has ended may be in it for a while.
    wait_until("they seal as before", lambda: set(sealing(pipeline)) == {number}, 60)


def test_what_cannot_be_is_refused(clients: Outside) -> None:
    from tests.integration.outside import run_cli

    fewer = run_cli(clients.pipeline, "partitions", "grow", "3")
    assert (fewer.returncode, "takes none away" in fewer.stderr) == (1, True)
    assert run_cli(clients.pipeline, "partitions", "grow", "0").returncode == 2
    assert run_cli(clients.pipeline, "partitions", "grow", "9", "--topic", "dimensions").returncode == 2
