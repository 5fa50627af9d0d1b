"""One round of offsets, read from Kafka in the order that the accounting needs."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition

from processors.store.accounting.generations import First


async def partitions_of(admin: AIOKafkaAdminClient, *names: str) -> list[TopicPartition]:
    """Return all partitions of these topics.

    Asked each time, as some may have been added; and not of the consumer, which knows those of its own subscription
    only. A topic without partitions would make every batch count as through.

    Raises:
        UnknownTopicOrPartitionError: a topic is not there.
    """
    described = await admin.describe_topics(list(names))
    found = [TopicPartition(entry["topic"], part["partition"]) for entry in described for part in entry["partitions"]]
    if {tp.topic for tp in found} != set(names):
        raise UnknownTopicOrPartitionError(f"not all of {', '.join(names)} are there")
    return found


async def first_records(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
) -> dict[TopicPartition, First | None]:
    """Return the first record of each partition, or None where it has none."""
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, 0))
    return {tp: First(place.offset, place.timestamp) if place else None for tp, place in found.items()}
