"""A collector that does not come back: it holds `complete_until` back until an operator retires it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaProducer

from midstream.kafka.marks import Mark, encode_mark
from midstream.topics import COLLECTORS
from tests.integration.outside import Outside, make_event, now_ms, run_cli, unique
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def clients(quiet: Pipeline) -> Iterator[Outside]:
    found = Outside(quiet)
    yield found
    found.close()


def say(pipeline: Pipeline, mark: Mark) -> None:
    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=pipeline.kafka_servers, acks="all")
        await producer.start()
        try:
            key, value = encode_mark(mark)
            await producer.send_and_wait(COLLECTORS.name, value, key)
        finally:
            await producer.stop()

    asyncio.run(asyncio.wait_for(send(), 30))


def complete_ms(clients: Outside) -> int:
    return int(clients.value("SELECT toUnixTimestamp64Milli(complete_until) FROM complete_until"))


def test_a_lost_collector_holds_the_watermark_until_it_is_retired(quiet: Pipeline, clients: Outside) -> None:
    lost = Mark(
        unique("lost"), now_ms() + 1_000, now_ms(), True, spooled_batches=3, spooled_bytes=99, oldest_ms=now_ms()
    )
    say(quiet, lost)
    wait_until("complete_until has come near to it", lambda: complete_ms(clients) > lost.low_ms - 4_000, 60)
    clients.send([make_event()])
    clients.wait_accounted()
    wait_until("the others have gone on", lambda: now_ms() > lost.low_ms + 6_000, 30)
    assert complete_ms(clients) <= lost.low_ms

    shown = {one["id"]: one for one in json.loads(clients.cli("collectors", "list", "--json"))}
    assert shown[lost.id]["open"]
    assert shown[lost.id]["spooled_batches"] == 3
    assert lost.id in clients.cli("collectors", "list")
    alive = next(id_ for id_, one in shown.items() if one["open"] and id_ != lost.id)
    refused = run_cli(quiet, "collectors", "retire", alive)
    assert refused.returncode == 1
    assert "alive" in refused.stderr
    unknown = run_cli(quiet, "collectors", "retire", "nobody")
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr

    clients.cli("collectors", "retire", lost.id, "--force")
    wait_until("complete_until goes on", lambda: complete_ms(clients) > lost.low_ms + 1_000, 60)
    assert not next(one for one in json.loads(clients.cli("collectors", "list", "--json")) if one["id"] == lost.id)[
        "open"
    ]
    wait_until(
        "analysts see it closed",
        lambda: clients.value("SELECT open FROM collectors WHERE id = {id:String}", id=lost.id) is False,
        30,
    )
