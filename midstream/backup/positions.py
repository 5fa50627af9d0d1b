"""Where Kafka's topics and their readers are, and setting the readers back to where they were.

Set back are the groups whose work lies in ClickHouse. The group of ``validate`` is not, as what it has done lies in
Kafka; unless the topics that hold it were made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.backup.errors import BackupError
from midstream.backup.manifest import KafkaPart, Position, Seen
from midstream.kafka.admin import COORDINATOR_AWAY, certain_offsets, member_ids
from midstream.kafka.connection import connection
from midstream.settings import Settings

READERS: dict[str, tuple[topics.Topic, ...]] = {
    topics.GROUP_STORE: (topics.VALID, topics.DEAD),
    topics.GROUP_RECEIPTS: (topics.RAW,),
    topics.GROUP_DIMENSIONS: (topics.DIMENSIONS,),
    topics.GROUP_DEVICES: (topics.DEVICE,),
}
"""Groups whose work lies in ClickHouse, and what they read."""

_LOOKED_AT = (topics.RAW, topics.VALID, topics.DEAD, topics.DIMENSIONS, topics.DEVICE, topics.ASSIGNMENT)
_COMPACTED = frozenset({topics.DIMENSIONS.name})
_READ_S = 30.0
_RETRY_S = 0.5


@dataclass(slots=True)
class SetBack:
    """What became of setting the readers back."""

    records: int = 0
    """Records that they will read again."""
    gone: dict[str, int] = field(default_factory=dict)
    """Records by topic that Kafka has deleted since, which nobody has read."""
    other: list[str] = field(default_factory=list)
    """Topics that are not those of the backup: made anew, or of another Kafka."""


@contextlib.asynccontextmanager
async def _kafka(settings: Settings) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    admin = AIOKafkaAdminClient(
        **connection(settings),
        client_id="midstream-backup",
        request_timeout_ms=settings.kafka_timeout_ms,
    )
    consumer = AIOKafkaConsumer(
        **connection(settings),
        client_id="midstream-backup",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=64 * 1024,  # Kafka sends the first record whole, however long it is
    )
    try:
        try:
            async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
                await admin.start()
                await consumer.start()
            yield admin, consumer
        except (KafkaError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise BackupError("KAFKA", f"Kafka at {settings.kafka_servers} does not answer: {reason}") from None
    finally:
        await consumer.stop()
        await admin.close()


async def read_positions(settings: Settings) -> KafkaPart:
    """Return where topics and readers are.

    Raises:
        BackupError: ``KAFKA``.
    """
    async with _kafka(settings) as (admin, consumer):
        # What the groups have committed comes first: with the ends of later nothing is passed over.
        positions = [
            Position(group, tp.topic, tp.partition, offset)
            for group, of in READERS.items()
            for tp, offset in sorted((await _committed(admin, group, await _partitions(admin, of))).items())
        ]
        partitions = await _partitions(admin, _LOOKED_AT)
        begins, ends = await _bounds(settings, consumer, partitions)
        last = await _last_times(settings, consumer, [tp for tp in partitions if begins[tp] < ends[tp]], ends)
    seen = [Seen(tp.topic, tp.partition, begins[tp], ends[tp], last.get(tp, 0)) for tp in partitions]
    return KafkaPart(seen, positions)


async def check_without_members(settings: Settings, wait_s: float) -> None:
    """See that nobody reads: what a worker stores meanwhile would be lost, and Kafka takes offsets of idle groups only.

    Raises:
        BackupError: ``WORKERS_RUN``, ``KAFKA``.
    """
    async with _kafka(settings) as (admin, _):
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            busy = [group for group in (*READERS, topics.GROUP_VALIDATE) if await _members(admin, group)]
            if not busy:
                return
            if asyncio.get_running_loop().time() >= deadline:
                raise BackupError("WORKERS_RUN", f"workers read as {', '.join(busy)}: stop all of them, then restore")
            await asyncio.sleep(_RETRY_S)


async def set_back(settings: Settings, then: KafkaPart) -> SetBack:
    """Have the readers go on where they were; where a topic is another one now, at its beginning.

    Raises:
        BackupError: ``KAFKA``.
    """
    found = SetBack()
    async with _kafka(settings) as (admin, consumer):
        partitions = await _partitions(admin, _LOOKED_AT)
        begins, ends = await _bounds(settings, consumer, partitions)
        seen = {TopicPartition(one.topic, one.partition): one for one in then.partitions}
        others = {
            tp.topic
            for tp in partitions
            if tp in seen and not await _is_same(settings, consumer, seen[tp], begins[tp], ends[tp])
        }
        others |= {tp.topic for tp in seen} - {tp.topic for tp in partitions}
        if others:  # by its offsets alone a compacted one that was made anew is not told from the one of then
            others |= _COMPACTED & {tp.topic for tp in seen}
        found.other = sorted(others)
        noted = {(one.group, TopicPartition(one.topic, one.partition)): one.offset for one in then.positions}
        readers = dict(READERS)
        if others & {topics.VALID.name, topics.DEAD.name}:
            readers[topics.GROUP_VALIDATE] = (topics.RAW,)  # what it has done is gone; it does it again
        for group, of in readers.items():
            names = {topic.name for topic in of}
            then_at = {
                tp: 0 if tp.topic in others else noted.get((group, tp), 0) for tp in partitions if tp.topic in names
            }
            # Never before what there is: a reader that finds nothing there commits nothing, and is waited for.
            wanted = {tp: max(offset, begins[tp]) for tp, offset in then_at.items()}
            for tp, offset in wanted.items():
                found.records += ends[tp] - offset
                if then_at[tp] < offset and group in READERS and tp.topic not in (others | _COMPACTED):
                    found.gone[tp.topic] = found.gone.get(tp.topic, 0) + offset - then_at[tp]
            await _commit(settings, group, wanted)
            if await _committed(admin, group, list(wanted)) != wanted:
                raise BackupError("KAFKA", f"Kafka did not take the offsets of {group}: run the restore again")
    return found


async def beginnings(settings: Settings, then: KafkaPart, topic: str) -> dict[TopicPartition, int]:
    """Return of each partition of a topic the end that it had then; 0 where it is another one now.

    Raises:
        BackupError: ``KAFKA``.
    """
    seen = {one.partition: one for one in then.partitions if one.topic == topic}
    async with _kafka(settings) as (admin, consumer):
        partitions = [tp for tp in await _partitions(admin, _LOOKED_AT) if tp.topic == topic]
        begins, ends = await _bounds(settings, consumer, partitions)
        return {
            tp: seen[tp.partition].end
            if tp.partition in seen and await _is_same(settings, consumer, seen[tp.partition], begins[tp], ends[tp])
            else 0
            for tp in partitions
        }


async def _is_same(settings: Settings, consumer: AIOKafkaConsumer, seen: Seen, begin: int, end: int) -> bool:
    """Tell whether a partition is the one that was seen. Kafka's client shows no topic ids, so this is told from
    offsets, which only grow, and from when the last record of then was appended."""
    if end < seen.end or begin < seen.begin:
        return False
    if not seen.last_at_ms or begin >= seen.end or seen.topic in _COMPACTED:
        return True
    tp = TopicPartition(seen.topic, seen.partition)
    async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
        place = (await consumer.offsets_for_times({tp: seen.last_at_ms}))[tp]
    return place is not None and place.timestamp == seen.last_at_ms and place.offset < seen.end


async def _partitions(admin: AIOKafkaAdminClient, of: Iterable[topics.Topic]) -> list[TopicPartition]:
    names = {topic.name for topic in of}
    described = await admin.describe_topics(None)
    return sorted(
        TopicPartition(one["topic"], part["partition"])
        for one in described
        if one["topic"] in names
        for part in one["partitions"]
    )


async def _bounds(
    settings: Settings, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    if not partitions:
        return {}, {}
    async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
        begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    return begins, ends


async def _last_times(
    settings: Settings,
    consumer: AIOKafkaConsumer,
    partitions: Sequence[TopicPartition],
    ends: dict[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Return when the last record before each end was appended; of one whose record is compacted away nothing."""
    found: dict[TopicPartition, int] = {}
    for tp in partitions:  # one after the other: each may be as long as a message can be
        if tp.topic in _COMPACTED:
            continue
        consumer.assign([tp])
        consumer.seek(tp, ends[tp] - 1)
        async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
            record = await consumer.getone(tp)
        found[tp] = int(record.timestamp)
    return found


async def _committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Ask until the coordinator can tell: Kafka makes their topic when the first group comes."""
    deadline = asyncio.get_running_loop().time() + _READ_S
    while True:
        try:
            return await certain_offsets(admin, group, partitions)
        except COORDINATOR_AWAY:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(_RETRY_S)


async def _members(admin: AIOKafkaAdminClient, group: str) -> bool:
    try:
        return bool(await member_ids(admin, group))
    except COORDINATOR_AWAY:
        return False  # a Kafka that nobody has read from yet; one that starts is asked again by whoever commits


async def _commit(settings: Settings, group: str, offsets: dict[TopicPartition, int]) -> None:
    if not offsets:
        return
    consumer = AIOKafkaConsumer(
        **connection(settings), client_id="midstream-backup", group_id=group, enable_auto_commit=False
    )
    async with asyncio.timeout(_READ_S):
        await consumer.start()
        try:
            consumer.assign(list(offsets))
            await consumer.commit(offsets)
        finally:
            await consumer.stop()
