"""Whether Kafka answers, and how long each group is behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.kafka.admin import COORDINATOR_AWAY, certain_offsets
from midstream.kafka.connection import connection
from midstream.logs import get_logger
from midstream.metrics import LAG_SECONDS, REACHABLE
from midstream.settings import Settings
from serve.facts.lag import age_s, behind

_log = get_logger(__name__)

REACH_S = 2.0
"""A system that does not answer for so long is called away."""

_LAG_S = 10.0
_CLOSE_S = 2.0
_CLIENT = "midstream-facts"

_READ_BY = {
    topics.GROUP_VALIDATE: (topics.RAW.name,),
    topics.GROUP_RECEIPTS: (topics.RAW.name,),
    topics.GROUP_STORE: (topics.VALID.name, topics.DEAD.name),
    topics.GROUP_DIMENSIONS: (topics.DIMENSIONS.name,),
    topics.GROUP_DEVICES: (topics.DEVICE.name,),
}


class KafkaFacts:
    """Belongs to one event loop. Connects when it first looks, and anew after Kafka was away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def look(self) -> None:
        """Look once."""
        try:
            async with asyncio.timeout(REACH_S):
                partitions = await self._connected()
        except (KafkaError, TimeoutError, OSError) as error:
            await self._lose(error)
            REACHABLE.labels("kafka").set(0)
            return
        REACHABLE.labels("kafka").set(1)
        try:
            async with asyncio.timeout(_LAG_S):
                await self._tell_lags(partitions)
        except COORDINATOR_AWAY:
            LAG_SECONDS.clear()
        except (KafkaError, TimeoutError, OSError) as error:
            await self._lose(error)

    async def close(self) -> None:
        """Close the connections."""
        admin, self._admin = self._admin, None
        consumer, self._consumer = self._consumer, None
        # Of a broker that hangs nothing can be expected.
        with suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                if admin is not None:
                    await admin.close()
                if consumer is not None:
                    await consumer.stop()

    async def _lose(self, error: Exception) -> None:
        """What was last measured says nothing of now."""
        _log.debug("facts.kafka_away", error=f"{type(error).__name__}: {error}")
        LAG_SECONDS.clear()
        await self.close()

    async def _connected(self) -> dict[str, list[TopicPartition]]:
        """Return the partitions of each topic that there is."""
        if self._admin is None or self._consumer is None:
            timeout_ms = int(REACH_S * 1000)
            settings = self._settings
            admin = AIOKafkaAdminClient(**connection(settings), client_id=_CLIENT, request_timeout_ms=timeout_ms)
            consumer = AIOKafkaConsumer(
                **connection(settings), client_id=_CLIENT, group_id=None, enable_auto_commit=False
            )
            self._admin, self._consumer = admin, consumer
            await admin.start()
            await consumer.start()
        described = await self._admin.describe_topics(None)
        return {
            entry["topic"]: [TopicPartition(entry["topic"], part["partition"]) for part in entry["partitions"]]
            for entry in described
        }

    async def _tell_lags(self, partitions: Mapping[str, list[TopicPartition]]) -> None:
        admin, consumer = self._admin, self._consumer
        assert admin is not None and consumer is not None  # noqa: S101, PT018 - _connected() made them
        now_ms = time.time_ns() // 1_000_000

        async def find(moments: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int | None]:
            found = await consumer.offsets_for_times(dict(moments))
            return {tp: place.offset if place else None for tp, place in found.items()}

        for group, names in _READ_BY.items():
            for name in names:
                # How far the group is before the ends: what comes in between is not taken for old.
                committed = await certain_offsets(admin, group, partitions.get(name, []))
                ends = await consumer.end_offsets(partitions.get(name, []))
                firsts = await consumer.beginning_offsets(partitions.get(name, []))
                age = await age_s(find, behind(ends, firsts, committed), now_ms)
                LAG_SECONDS.labels(group, name).set(age)
