"""Where Kafka's topics end, and where consumer groups are."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition

from midstream.kafka.admin import certain_offsets
from midstream.kafka.connection import connection
from midstream.settings import Settings
from serve.jobs.tools import Ends

_CLIENT = "midstream-jobs"


class GroupFollower:
    """Asks Kafka. Belongs to one event loop; connects when it is first asked, and anew after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_ms = settings.kafka_timeout_ms
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None

    async def ends(self, topic: str) -> Ends:
        """Return the offset after the last record of each partition of a topic.

        Raises:
            KafkaError: Kafka cannot tell now.
        """
        try:
            admin, consumer = await self._connect()
            described = await admin.describe_topics([topic])
            partitions = [TopicPartition(topic, part["partition"]) for one in described for part in one["partitions"]]
            if not partitions:
                raise UnknownTopicOrPartitionError(topic)
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            return ends
        except (KafkaError, OSError, asyncio.CancelledError):
            await self.close()  # what failed, or was waited for too long, is not used again
            raise

    async def behind(self, group: str, ends: Ends) -> int:
        """Return how many records before these ends a group has not acknowledged.

        Raises:
            KafkaError: Kafka cannot tell now.
        """
        try:
            admin, consumer = await self._connect()
            partitions = [tp for tp, end in ends.items() if end]
            committed = await certain_offsets(admin, group, partitions)
            # What retention has deleted nobody acknowledges any more; it may be all.
            late = [tp for tp in partitions if committed.get(tp, 0) < ends[tp]]
            begins = await consumer.beginning_offsets(late) if late else {}
            return sum(max(0, ends[tp] - max(committed.get(tp, 0), begins[tp])) for tp in late)
        except (KafkaError, OSError, asyncio.CancelledError):
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients[0].close()
            await clients[1].stop()

    async def _connect(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._clients is None:
            common = {
                **connection(self._settings),
                "client_id": _CLIENT,
                "request_timeout_ms": self._timeout_ms,
            }
            admin = AIOKafkaAdminClient(**common)
            consumer = AIOKafkaConsumer(**common, group_id=None)  # it reads nothing
            try:
                await admin.start()
                await consumer.start()
            except BaseException:
                await admin.close()
                await consumer.stop()
                raise
            self._clients = admin, consumer
        return self._clients
