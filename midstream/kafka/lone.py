"""A producer for records that the broker may refuse: each goes in a request of its own.

A broker judges the batch that a producer makes of several records, and a refused one leaves a hole in an idempotent
producer's numbers, which ends it. This producer is not idempotent: a refusal is about one record, and costs nothing
else. What it sends may come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from midstream.kafka.producer import Life, ProducerUnavailable, RecordTooLarge, is_refusal, make_producer
from midstream.settings import Settings


class LoneProducer:
    """Sends one record at a time. Belongs to one event loop."""

    def __init__(self, producer: AIOKafkaProducer, timeout_s: float) -> None:
        self._producer = producer
        self._timeout_s = timeout_s

    async def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic.

        Raises:
            ProducerUnavailable: Kafka cannot tell now.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return len(await self._producer.partitions_for(topic))
        except (KafkaError, TimeoutError) as error:
            raise ProducerUnavailable(f"the producer failed: {type(error).__name__}") from None

    async def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """Return when every in-sync replica has the record.

        Raises:
            ProducerUnavailable: it was not acknowledged; it may be there all the same.
            RecordTooLarge: Kafka does not take it, now or later.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.send_and_wait(topic, value, key, partition=partition, headers=headers)
        except TimeoutError:
            raise ProducerUnavailable("a record was not acknowledged in time") from None
        except KafkaError as error:
            if is_refusal(error):
                raise RecordTooLarge(f"a record of {len(value)} bytes is larger than topic {topic} takes") from None
            raise ProducerUnavailable(f"the producer failed: {type(error).__name__}") from None


@asynccontextmanager
async def open_lone_producer(settings: Settings) -> AsyncIterator[LoneProducer]:
    """Connect one, and close it afterwards.

    Raises:
        ProducerUnavailable: Kafka is away.
    """
    timeout_s = settings.kafka_timeout_ms / 1000
    producer = make_producer(settings, idempotent=False)
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise ProducerUnavailable(f"not connected: {type(error).__name__}") from None
        yield LoneProducer(producer, timeout_s)
    finally:
        await Life(producer, timeout_s).close(timeout_s)
