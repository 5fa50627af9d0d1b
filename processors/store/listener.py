"""Follows the ``dimensions`` topic in each worker, beside the sink that they share: what changes is known at once.

It begins where the sink stands, so that every row is either in ClickHouse when it is asked, or heard here. While it is
not known to be at the topic's end (at its start, or when Kafka has not answered for some seconds) the cache is told so,
and believes no row for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import InternalType
from midstream.kafka.admin import COORDINATOR_AWAY, certain_offsets
from midstream.kafka.connection import connection
from midstream.logs import get_logger
from midstream.settings import Settings
from processors.store.dimension_cache import DimensionCache
from processors.store.dimensions import decode_rows, load_erased
from processors.store.erased import ErasedUsers
from processors.stray import stop_in_time

log = get_logger(__name__)

SILENCE_S = 5.0
"""How long Kafka may not have answered: it answers twice a second, also when there is nothing new."""

_TAKE_S = 1.0
_MAX_RECORDS = 5_000
_RETRY_S = 0.5
_CLIENT = "midstream-dimensions-listener"


async def listen(settings: Settings, clickhouse: ClickHouse, cache: DimensionCache, erased: ErasedUsers) -> None:
    """Offer every row of the topic that the sink has not stored yet, and every new one, until cancelled.

    Without a group, so that each worker sees all partitions.

    Raises:
        KafkaError, TimeoutError: Kafka cannot be read.
        ClickHouseError: which users were erased cannot be read.
        ErasedError: nothing may be stored any more.
    """
    # Subscribed without a group: aiokafka then assigns all partitions, later ones too. (It knows the partitions of
    # topics that it is subscribed to, and of no others: they cannot be asked for and assigned by hand.)
    consumer = AIOKafkaConsumer(
        topics.DIMENSIONS.name,
        **connection(settings),
        client_id=_CLIENT,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # of a row that was there before, nothing changes
    )
    try:
        async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
            await consumer.start()
            ends = await _begin(settings, consumer)
        # Again, from here on nothing is missed: what the sink had stored by then is in ClickHouse.
        await asyncio.to_thread(load_erased, clickhouse, erased)
        is_followed = False
        while True:
            taken = await consumer.getmany(timeout_ms=int(_TAKE_S * 1000), max_records=_MAX_RECORDS)
            for row in decode_rows([record for part in taken.values() for record in part]):
                if row.type == InternalType.ERASED:
                    erased.add([row.id])
                else:
                    cache.offer(row.type.value, row.id, row.attributes, row.version, row.deleted)
            if is_followed != (_answers(consumer) and (is_followed or await _is_at_end(consumer, ends))):
                is_followed = not is_followed
                cache.follow(is_followed)
                if is_followed:
                    log.info("dimensions.followed")
                else:
                    log.warning("dimensions.not_followed", silent_s=SILENCE_S)
    finally:
        cache.follow(False)
        await stop_in_time(_CLIENT, consumer.stop())


async def _begin(settings: Settings, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Go to where the sink stands; return where the partitions end."""
    while not (partitions := sorted(consumer.assignment())):  # noqa: ASYNC110 - aiokafka tells nobody
        await asyncio.sleep(_RETRY_S)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    stored = await _stored_offsets(settings, partitions)
    for partition in partitions:
        # Committed beyond the end: of a topic that was made anew.
        start = stored.get(partition, 0)
        consumer.seek(partition, start if start <= ends[partition] else 0)
    return ends


async def _stored_offsets(settings: Settings, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    admin = AIOKafkaAdminClient(**connection(settings), client_id=_CLIENT)
    try:
        await admin.start()
        while True:
            try:
                return await certain_offsets(admin, topics.GROUP_DIMENSIONS, partitions)
            except COORDINATOR_AWAY:
                await asyncio.sleep(_RETRY_S)
    finally:
        await stop_in_time(_CLIENT, admin.close())


def _answers(consumer: AIOKafkaConsumer) -> bool:
    """Tell whether Kafka has answered of late for every partition."""
    since_ms = (time.time() - SILENCE_S) * 1000
    partitions = consumer.assignment()
    return bool(partitions) and all((consumer.last_poll_timestamp(tp) or 0) >= since_ms for tp in partitions)


async def _is_at_end(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    """Tell whether all has been read that was there at the start and at Kafka's latest answer."""
    for partition in consumer.assignment():
        try:
            async with asyncio.timeout(_TAKE_S):
                position = await consumer.position(partition)
        except TimeoutError:
            return False
        if position < max(ends.get(partition, 0), consumer.highwater(partition) or 0):
            return False
    return True
