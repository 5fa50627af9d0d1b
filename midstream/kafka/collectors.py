"""The collectors' marks: reading the topic to its end, what each promised last, and taking one out that will not come
back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import ConsumerRecord, TopicPartition

from midstream.kafka.connection import connection
from midstream.kafka.marks import Mark, decode_mark, encode_mark
from midstream.kafka.schemas import announce, look_up_in
from midstream.records import OtherVersionError, RecordError
from midstream.settings import Settings
from midstream.topics import COLLECTORS

_MAX_RECORDS = 5_000


async def read_to_end(
    consumer: AIOKafkaConsumer,
    partitions: list[TopicPartition],
    take: Callable[[ConsumerRecord[Any, Any]], None],
    stall_s: float,
) -> None:
    """Give all records up to the ends that there are now to ``take``, or rather of each key the newest of what came in
    one piece: older marks of a collector say nothing any more.

    However long the topic is, it is read; what is limited is how long nothing comes.

    Args:
        consumer: these partitions are assigned to it; it is read on from where it is.
        partitions: partitions of ``collectors``.
        take: called with each record.
        stall_s: longest wait for an answer, and longest time without a record, seconds.

    Raises:
        KafkaError: Kafka refuses.
        TimeoutError: nothing came for so long.
    """
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(stall_s) as limit:
        ends = await consumer.end_offsets(partitions)
        reached = -1
        while True:
            positions = {tp: await consumer.position(tp) for tp in partitions}
            if all(positions[tp] >= end for tp, end in ends.items()):
                return
            if sum(positions.values()) > reached:
                reached = sum(positions.values())
                limit.reschedule(clock() + stall_s)
            for records in (await consumer.getmany(timeout_ms=200, max_records=_MAX_RECORDS)).values():
                for record in {record.key: record for record in records}.values():
                    take(record)


async def read_marks(settings: Settings, stall_s: float) -> dict[str, Mark]:
    """Return the newest mark of each collector by its id.

    Args:
        settings: say where Kafka is.
        stall_s: longest wait for an answer of Kafka, seconds; not for all that it has to say.

    Raises:
        KafkaError, OSError, TimeoutError: Kafka does not answer in time.
    """
    look_up_in(settings)
    consumer = AIOKafkaConsumer(**connection(settings), group_id=None, enable_auto_commit=False)
    marks: dict[str, Mark] = {}

    def take(record: ConsumerRecord[Any, Any]) -> None:
        id_ = (record.key or b"").decode(errors="replace")
        if record.value is None:
            marks.pop(id_, None)
            return
        try:
            marks[id_] = decode_mark(record.value)
        except (RecordError, OtherVersionError):  # of a newer version; it counts as open, and promises nothing
            marks[id_] = Mark(id_, 0, record.timestamp, True)

    try:
        async with asyncio.timeout(stall_s):
            partitions = await _partitions(settings)
            await consumer.start()
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
        await read_to_end(consumer, partitions, take, stall_s)
    finally:
        await consumer.stop()
    return marks


async def _partitions(settings: Settings) -> list[TopicPartition]:
    """Ask Kafka itself: a consumer without a subscription may or may not know of a topic."""
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        await admin.start()
        described = await admin.describe_topics([COLLECTORS.name])
    finally:
        await admin.close()
    found = [TopicPartition(entry["topic"], part["partition"]) for entry in described for part in entry["partitions"]]
    if not found:
        raise UnknownTopicOrPartitionError(COLLECTORS.name)
    return found


async def retire(settings: Settings, mark: Mark, timeout_s: float) -> None:
    """Close a collector in its place: nothing waits for what it may still hold.

    Raises:
        KafkaError, OSError, TimeoutError: Kafka did not acknowledge in time.
    """
    producer = AIOKafkaProducer(**connection(settings), acks="all", enable_idempotence=True)
    # Its own clock goes on by the least: what is told of a closed collector is when it closed.
    key, value = encode_mark(replace(mark, open=False, at_ms=mark.at_ms + 1))
    async with asyncio.timeout(timeout_s):
        await producer.start()
        try:
            await announce(producer, [COLLECTORS.name])
            await producer.send_and_wait(COLLECTORS.name, value, key)
        finally:
            await producer.stop()
