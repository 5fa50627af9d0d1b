"""Which records of the three topics are still to be dealt with: a few small requests, asked of Kafka each time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.kafka.connection import connection
from midstream.settings import Settings

Ranges = Mapping[TopicPartition, tuple[int, int]]
"""First offset and the one after the last; none of them is empty."""

_TOPICS = (topics.RAW.name, topics.VALID.name, topics.DEAD.name)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the stages had not acknowledged at one moment.

    An event that was in ``telemetry.raw`` before it is in one of these records, or its verdict is in ClickHouse.
    """

    events: Ranges
    """Of ``telemetry.raw`` what ``validate`` has to do, of the other two topics what ``store`` has to."""
    receipts: Ranges
    """Of ``telemetry.raw``: what is not in ``batches`` yet."""


class Offsets:
    """Asks Kafka. Belongs to one event loop; connects when it is first asked, and anew after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None
        self._connecting = asyncio.Lock()

    async def backlog(self) -> Backlog:
        """Return the backlog now. Bound it in time: aiokafka waits for partitions that are without a leader.

        Raises:
            KafkaError: Kafka cannot tell now.
        """
        clients = await self._connect()
        try:
            return await _ask(*clients)
        except (KafkaError, asyncio.CancelledError):
            # What has failed, or has been waited for too long, is not used again.
            if self._clients is clients:
                self._clients = None
                await _close(*clients)
            raise

    async def close(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, None
        if clients is not None:
            await _close(*clients)

    async def _connect(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        async with self._connecting:
            if self._clients is None:
                timeout_ms = self._settings.kafka_timeout_ms
                admin = AIOKafkaAdminClient(
                    **connection(self._settings), client_id="midstream-trace", request_timeout_ms=timeout_ms
                )
                # It reads nothing: its connection must never wait for records.
                consumer = AIOKafkaConsumer(
                    **connection(self._settings),
                    client_id="midstream-trace",
                    group_id=None,
                    request_timeout_ms=timeout_ms,
                )
                try:
                    await admin.start()
                    await consumer.start()
                except BaseException:
                    await _close(admin, consumer)
                    raise
                self._clients = admin, consumer
            return self._clients


async def _close(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
    await admin.close()
    await consumer.stop()


async def _ask(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> Backlog:
    # In this order: what validate has committed, it has produced before; so the ends read after it hold that.
    validated, stored, received = await asyncio.gather(
        _committed(admin, topics.GROUP_VALIDATE),
        _committed(admin, topics.GROUP_STORE),
        _committed(admin, topics.GROUP_RECEIPTS),
    )
    described = await admin.describe_topics(list(_TOPICS))
    partitions = [
        TopicPartition(entry["topic"], part["partition"]) for entry in described for part in entry["partitions"]
    ]
    if {tp.topic for tp in partitions} != set(_TOPICS):
        raise UnknownTopicOrPartitionError("not all topics are there")
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    events = {tp: validated.get(tp, 0) if tp.topic == topics.RAW.name else stored.get(tp, 0) for tp in ends}
    return Backlog(
        events=_ranges(events, ends),
        receipts=_ranges({tp: received.get(tp, 0) for tp in ends if tp.topic == topics.RAW.name}, ends),
    )


def _ranges(starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> Ranges:
    found = {}
    for tp, start in starts.items():
        # Committed beyond the end: of a topic that was made anew, whose records will be read from the beginning.
        begin = start if start <= ends[tp] else 0
        if begin < ends[tp]:
            found[tp] = (begin, ends[tp])
    return found


async def _committed(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    """Return the group's committed offsets; none when it has never committed, or its coordinator is just loading: then
    everything counts as backlog, which is searched in vain but misses nothing."""
    offsets = await admin.list_consumer_group_offsets(group)
    return {tp: max(entry.offset, 0) for tp, entry in offsets.items()}
