"""The collectors' marks for an operator: what each promised last, and taking one out that will not come back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from midstream.kafka.marks import Mark, decode_mark, encode_mark
from midstream.records import RecordError
from midstream.settings import Settings
from midstream.topics import COLLECTORS


async def read_marks(settings: Settings, timeout_s: float) -> dict[str, Mark]:
    """Return the newest mark of each collector by its id.

    Raises:
        KafkaError, OSError, TimeoutError: Kafka does not answer in time.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_servers, group_id=None, enable_auto_commit=False)
    marks: dict[str, Mark] = {}
    async with asyncio.timeout(timeout_s):
        await consumer.start()
        try:
            await consumer.topics()  # without a subscription it knows no topic until it asks
            partitions = [
                TopicPartition(COLLECTORS.name, n) for n in consumer.partitions_for_topic(COLLECTORS.name) or ()
            ]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        id_ = (record.key or b"").decode(errors="replace")
                        if record.value is None:
                            marks.pop(id_, None)
                            continue
                        try:
                            marks[id_] = decode_mark(record.value)
                        except RecordError:  # of a newer version; it counts as open, and promises nothing
                            marks[id_] = Mark(id_, 0, record.timestamp, True)
        finally:
            await consumer.stop()
    return marks


async def retire(settings: Settings, mark: Mark, timeout_s: float) -> None:
    """Close a collector in its place: nothing waits for what it may still hold.

    Raises:
        KafkaError, OSError, TimeoutError: Kafka did not acknowledge in time.
    """
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_servers, acks="all", enable_idempotence=True)
    # Its own clock goes on by the least: what is told of a closed collector is when it closed.
    key, value = encode_mark(replace(mark, open=False, at_ms=mark.at_ms + 1))
    async with asyncio.timeout(timeout_s):
        await producer.start()
        try:
            await producer.send_and_wait(COLLECTORS.name, value, key)
        finally:
            await producer.stop()
