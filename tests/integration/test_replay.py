"""What Kafka gives a second time is counted nowhere: groups set back to the beginning, caches rebuilt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.kafka.groups import GroupStates
from midstream.settings import Settings
from tests.integration.outside import (
    Outside,
    Record,
    Row,
    make_body,
    make_event,
    produce,
    run_apart,
    start_process,
    stop_process,
    unique,
)
from tests.support.pipeline import PARTITIONS, Pipeline
from tests.support.waiting import wait_until

BATCHES = 60


@pytest.fixture(scope="module")
def clients(quiet: Pipeline) -> Iterator[Outside]:
    found = Outside(quiet)
    yield found
    found.close()


@pytest.fixture(scope="module")
def bodies(clients: Outside) -> list[bytes]:
    """Batches of every kind, sent and through: stored, duplicate (also with other contents), rejected, imported."""
    first = [make_event(eid, actor=unique("u")) for eid in ("START", "INTERACT", "LOG", "ASSESS", "ERROR") * 4]
    bodies = [
        make_body([make_event(), first[number % 20], make_event("LOG"), {"eid": "NOBODY", "mid": f"n{number}"}])
        for number in range(BATCHES)
    ]
    bodies.append(make_body([event | {"ets": event["ets"] + 1} for event in first]))
    batch_ids = [clients.send(json.loads(body)["events"], x_device_id=unique("d")) for body in bodies]
    clients.settle(batch_ids)
    produce(clients.pipeline, topics.RAW.name, [Record(bodies[0]), Record(b"unreadable")])
    wait_until("they are through", lambda: clients.value("SELECT countIf(source = 'import') FROM batches") == 2)
    clients.wait_accounted()
    return bodies


def everything(clients: Outside) -> dict[str, list[Row]]:
    """Return all rows of what readers see. When a row was written is no part of a verdict that is written anew."""
    return {
        "events": clients.rows("SELECT * FROM events ORDER BY mid"),
        "duplicates": clients.rows("SELECT * EXCEPT stored_at FROM duplicates ORDER BY batch_id, event_index"),
        "rejects": clients.rows("SELECT * EXCEPT stored_at FROM rejects ORDER BY batch_id, event_index"),
        "batches": clients.rows("SELECT * FROM batches ORDER BY batch_id"),
        "dimensions": clients.rows("SELECT * EXCEPT stored_at FROM dimensions ORDER BY type, id"),
        "accounting": clients.rows("SELECT * EXCEPT complete_until FROM accounting ORDER BY minute, channel"),
    }


def set_back(pipeline: Pipeline, group: str, names: Sequence[str]) -> None:
    """Set a group without members to the beginning of its topics."""
    settings = Settings.model_validate({"kafka": pipeline.kafka_servers})

    async def members() -> int:
        groups = GroupStates(settings, 5_000)
        try:
            return (await groups.describe([group])).get(group, ("", 0))[1]
        finally:
            await groups.close()

    async def commit() -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=pipeline.kafka_servers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            places = [TopicPartition(name, partition) for name in names for partition in range(PARTITIONS)]
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))
        finally:
            await consumer.stop()

    # A worker with a name stays a member until its session times out.
    wait_until("the group has no members", lambda: run_apart(members()) == 0, 40, 0.5)
    run_apart(commit())


def replayed(pipeline: Pipeline) -> float:
    """Return how many replays the running `store` has counted."""
    page = httpx.get(f"http://127.0.0.1:{pipeline.settings['store_metrics_port']}/metrics", timeout=20, trust_env=False)
    [line] = [line for line in page.text.splitlines() if line.startswith("midstream_replayed_events_total ")]
    return float(line.split()[1])


def replay(clients: Outside, name: str, groups: dict[str, list[str]], done: Callable[[], bool]) -> None:
    """Stop a worker, set its groups back, start it, and wait until it has read everything again."""
    pipeline = clients.pipeline
    stop_process(pipeline, name)
    for group, names in groups.items():
        set_back(pipeline, group, names)
    start_process(pipeline, name)
    pipeline.wait_ready()
    wait_until("everything has been read again", done, 40)
    clients.wait_accounted()


def test_batches_that_validate_reads_again(clients: Outside, bodies: list[bytes]) -> None:
    """It seals them into other blocks, at other offsets, in other company."""
    before, seen = everything(clients), replayed(clients.pipeline)
    valid = len(before["events"]) + len(before["duplicates"])
    replay(
        clients,
        "validate",
        {topics.GROUP_VALIDATE: [topics.RAW.name]},
        lambda: replayed(clients.pipeline) - seen >= len(before["events"]),
    )
    assert everything(clients) == before
    # A duplicate's second reading is written over its first; only what is stored is told from a replay by its mid.
    assert len(before["events"]) <= replayed(clients.pipeline) - seen <= valid


def test_blocks_that_store_reads_again(clients: Outside, bodies: list[bytes]) -> None:
    """With its cache rebuilt from ClickHouse; receipts and dimensions too."""
    assert clients.operate("PUT", f"/v1/dimensions/user/{unique('u')}", {"a": 1}).status_code == 200
    wait_until("it is in ClickHouse", lambda: clients.rows("SELECT * FROM dimensions"))
    before = everything(clients)
    replay(
        clients,
        "store",
        {
            topics.GROUP_STORE: [topics.VALID.name, topics.DEAD.name],
            topics.GROUP_RECEIPTS: [topics.RAW.name],
            topics.GROUP_DIMENSIONS: [topics.DIMENSIONS.name],
        },
        lambda: replayed(clients.pipeline) >= len(before["events"]),
    )
    assert everything(clients) == before


def test_a_resend_after_all_that_is_a_duplicate(clients: Outside, bodies: list[bytes]) -> None:
    """The new worker knows what the one before it stored."""
    before = clients.value("SELECT count() FROM events")
    batch_ids = [clients.send(json.loads(body)["events"]) for body in bodies]
    found = clients.settle(batch_ids)
    assert (found.stored, found.rejected) == (0, BATCHES)
    assert clients.value("SELECT count() FROM events") == before
    known = {row["mid"]: row for row in clients.rows("SELECT mid, batch_id, received_at FROM events")}
    for row in clients.duplicates(batch_ids):
        first = known[row["mid"]]
        assert (row["first_batch_id"], row["first_received_at"]) == (first["batch_id"], first["received_at"])
