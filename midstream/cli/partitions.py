"""``midstream partitions``: how many partitions each topic has, and more of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from midstream.cli._common import Refused, on_record, print_json, print_table, read_settings, say

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

    from midstream.settings import Settings

_VALID = "telemetry.valid"
_GROWABLE = (_VALID, "telemetry.raw", "telemetry.dead")
_TIMEOUT_S = 10.0
_POLL_S = 1.0
_SAY_S = 5.0

T = TypeVar("T")


@click.group()
def partitions() -> None:
    """Partitions of the topics: what more workers share among them."""


@partitions.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print an object: topic, number of partitions.")
def list_partitions(as_json: bool) -> None:
    """List the number of partitions of each topic."""
    found = _ask(read_settings(), _count)
    if as_json:
        print_json(found)
    else:
        print_table(["TOPIC", "PARTITIONS"], [[topic, str(count)] for topic, count in found.items()])


@partitions.command()
@click.argument("number", type=click.IntRange(1, 1024))
@click.option("--topic", type=click.Choice(_GROWABLE), default=_VALID, show_default=True)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.IntRange(0, 86_400),
    default=300,
    show_default=True,
    help="Seconds to wait until `validate` seals under the new number.",
)
def grow(number: int, topic: str, timeout_s: int) -> None:
    """Give a topic NUMBER partitions in all; the pipeline may run.

    All counts stay exact: `validate` notices, stops sealing, and begins again once `store` has stored what was sealed
    under the old number. Meanwhile the collector takes batches, and Kafka holds them.
    """
    settings = read_settings()
    before = _ask(settings, _count)
    if topic not in before:
        raise Refused(f"{settings.kafka_servers} has no topic {topic}")
    if number < before[topic]:
        raise Refused(f"{topic} has {before[topic]} partitions, and Kafka takes none away")
    if number > before[topic]:
        with on_record("topic.grow", f"topic/{topic}", before=before[topic], now=number):
            _ask(settings, lambda admin: _add(admin, topic, number))
        say(f"{topic} has {number} partitions instead of {before[topic]}")
    else:
        say(f"{topic} has {number} partitions already")
    if topic == _VALID:
        _wait(settings, number, timeout_s)
    else:
        say("workers read the new ones within seconds; the collector and `validate` write to them within minutes")


def _wait(settings: Settings, number: int, timeout_s: int) -> None:
    """Wait until all of ``validate`` seals under ``number``."""
    from midstream.kafka.sealing import numbers_of

    began = said_at = time.monotonic()
    while True:
        members = _ask(settings, _members)
        numbers = list(numbers_of(members or []).values())
        old = sum(one != number for one in numbers)
        if numbers and not old:
            say(f"{len(numbers)} validate worker(s) seal under {number} partitions")
            return
        what = f"{old} validate worker(s) have not left yet" if old else "`validate` waits for `store`, or does not run"
        if members is None:
            what = "Kafka's group coordinator cannot tell now"
        now = time.monotonic()
        if now - began >= timeout_s:
            raise Refused(
                f"not within {timeout_s} s: {what}. Nothing is lost: it goes on by itself once `store` has stored what "
                f"was sealed before. `midstream partitions grow {number}` waits again."
            )
        if now - said_at >= _SAY_S:
            said_at = now
            say(f"{now - began:.0f} s: {what}")
        time.sleep(_POLL_S)


async def _count(admin: AIOKafkaAdminClient) -> dict[str, int]:
    from midstream import topics
    from midstream.kafka.admin import partitions_of_topics

    there = await partitions_of_topics(admin)
    return {topic.name: there[topic.name] for topic in topics.ALL if topic.name in there}


async def _add(admin: AIOKafkaAdminClient, topic: str, number: int) -> None:
    from midstream.kafka.admin import add_partitions

    await add_partitions(admin, topic, number)


async def _members(admin: AIOKafkaAdminClient) -> list[str] | None:
    """Return the members of ``validate``'s group; None while Kafka cannot tell."""
    from midstream import topics
    from midstream.kafka.admin import COORDINATOR_AWAY, member_ids

    try:
        return await member_ids(admin, topics.GROUP_VALIDATE)
    except COORDINATOR_AWAY:
        return None


def _ask(settings: Settings, question: Callable[[AIOKafkaAdminClient], Coroutine[Any, Any, T]]) -> T:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    from midstream.kafka.connection import connection

    async def ask() -> T:
        admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=int(_TIMEOUT_S * 1000))
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await admin.start()
                return await question(admin)
        finally:
            await admin.close()

    try:
        return asyncio.run(ask())
    except TimeoutError:
        raise Refused(f"Kafka at {settings.kafka_servers} does not answer") from None
    except (KafkaError, OSError) as error:
        raise Refused(f"Kafka at {settings.kafka_servers}: {error}") from None
