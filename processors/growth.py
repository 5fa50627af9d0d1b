"""``telemetry.valid`` may have been given more partitions: what was sealed under the old number is stored first.

A mid's arrivals lie in one partition, by its hash and the number of partitions. Under another number it is another
partition, perhaps of another ``store`` worker, and two must never decide on one mid at the same time. So before a
``validate`` worker seals its first block under a new number, every block sealed under another one has been stored, and
no worker is left that could seal one more:

- A worker takes the number at its start, looks at it every second, and ends when it has changed.
- Its member id in the group ends in the number. A worker that starts waits until no member has another one (one that
  died, or is frozen, is a member until its session times out, and has lost its lease by then).
- Then it waits until the first block of each partition that is not stored yet is sealed under the new number: blocks of
  a partition lie in order, so that no older one is left.
- A worker that was cut off from Kafka is no member any more, but may still have a block to send, and sends it when the
  cut heals, before its own time limits end it. So where no block is sealed under the new number yet, all of this has to
  be seen for as long as such a worker can live: the session timeout, and the time limit for Kafka twice.
- Only then does it join, and looks once more at the first two: of two that start at once, one sees the other.

So whoever sees a block under the new number knows that everything older is stored. A ``store`` worker needs that for
its cache: mids of its new partitions may have been stored by others, from older blocks, after it read what is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.kafka.admin import COORDINATOR_AWAY, certain_offsets, member_ids, partitions_of_topics
from midstream.kafka.connection import connection
from midstream.kafka.sealing import other_members
from midstream.logs import get_logger
from midstream.metrics import WAITING_FOR_STORE_BLOCKS
from midstream.records import RecordError, decode_record
from midstream.settings import Settings

log = get_logger(__name__)

_POLL_S = 0.5
_HOLD_POLL_S = 2.0
_SAY_S = 10.0
_FETCH_S = 5.0
_CLIENT = "midstream-validate-start"


class PartitionsChangedError(Exception):
    """``telemetry.valid`` has another number of partitions than this worker seals under."""


@asynccontextmanager
async def _connected(settings: Settings, name: str) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    admin = AIOKafkaAdminClient(**connection(settings), client_id=name)
    consumer = AIOKafkaConsumer(
        **connection(settings),
        client_id=name,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=64 * 1024,  # Kafka sends the first record whole, however long it is
        fetch_max_bytes=16 * 1024 * 1024,
    )
    try:
        async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
            await admin.start()
            await consumer.start()
        yield admin, consumer
    finally:
        await consumer.stop()
        await admin.close()


@dataclass(frozen=True, slots=True)
class Older:
    """What is there of another number of partitions than ``telemetry.valid`` has."""

    partitions: int
    """The number that it has."""
    members: list[str]
    """Of ``validate``'s group, that seal under another one."""
    blocks: int
    """At least so many wait for ``store``; not looked for while there are such members."""

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing."""
        return not self.members and not self.blocks


async def wait_for_older_blocks(settings: Settings) -> int:
    """Wait until blocks may be sealed under the number of partitions that ``telemetry.valid`` has now; return it.

    Raises:
        KafkaError, TimeoutError: Kafka does not answer.
    """
    hold = Hold(settings)
    said_at = float("-inf")
    async with _connected(settings, _CLIENT) as (admin, consumer):
        while True:
            why: dict[str, Any]
            begun_at = time.monotonic()
            try:
                older = await _look(settings, admin, consumer)
                is_over = older.is_nothing and await _is_begun(settings, consumer, older.partitions)
            except COORDINATOR_AWAY as error:
                hold.begin_anew()
                why = {"error": repr(error)}
            else:
                WAITING_FOR_STORE_BLOCKS.set(older.blocks)
                if is_over or hold.is_over(older, begun_at, time.monotonic()):
                    return older.partitions
                why = asdict(older) | {"held_for_s": hold.held_for_s(begun_at), "of_s": hold.limit_s}
            if time.monotonic() - said_at >= _SAY_S:
                said_at = time.monotonic()
                log.warning("validate.waits_for_older_blocks", **why)
            await asyncio.sleep(_HOLD_POLL_S if hold.is_on else _POLL_S)


class Hold:
    """How long nothing of another number has been seen. Pure: is told the time, seconds of a monotonic clock."""

    def __init__(self, settings: Settings) -> None:
        self.limit_s = (settings.kafka_session_timeout_ms + 2 * settings.kafka_timeout_ms) / 1000
        """A worker that Kafka has given up cannot live for longer: it may have begun a block at the end of its session,
        waits once to hand it over and once for it to be durable, and ends."""
        self._partitions = 0
        self._since = 0.0

    @property
    def is_on(self) -> bool:
        """Whether nothing was seen at the last look."""
        return self._partitions > 0

    def begin_anew(self) -> None:
        """Something was seen, or nothing can be said."""
        self._partitions = 0

    def is_over(self, older: Older, begun_at: float, ended_at: float) -> bool:
        """Take a look that was begun and ended at these times; tell whether it has been long enough."""
        if not older.is_nothing:
            self.begin_anew()
        elif older.partitions != self._partitions:
            self._partitions, self._since = older.partitions, ended_at
        return self.is_on and begun_at - self._since >= self.limit_s

    def held_for_s(self, now: float) -> float:
        """Return for how long nothing has been seen."""
        return round(max(now - self._since, 0.0), 1) if self.is_on else 0.0


async def check_older(settings: Settings, partitions: int) -> None:
    """Make sure, having joined, that there is nothing of another number: no member of the group, and no block that is
    not stored.

    Raises:
        PartitionsChangedError: there is.
        KafkaError, TimeoutError: Kafka does not answer, or cannot tell now.
    """
    async with _connected(settings, _CLIENT) as (admin, consumer):
        older = await _look(settings, admin, consumer)
    if older.partitions != partitions or not older.is_nothing:
        raise PartitionsChangedError(f"this worker would seal under {partitions} partitions, and there is {older}")


async def _look(settings: Settings, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> Older:
    async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
        partitions = (await partitions_of_topics(admin))[topics.VALID.name]
        members = other_members(await member_ids(admin, topics.GROUP_VALIDATE), partitions)
        waiting = {} if members else await _waiting_blocks(admin, consumer, partitions)
    return Older(partitions, members, await _first_older(consumer, waiting, partitions))


async def older_are_stored(settings: Settings, partitions: int) -> bool:
    """Tell whether it is certain that all blocks sealed under another number of partitions than this have been stored,
    and that none will come: there is a block that is sealed under it.

    Raises:
        KafkaError, TimeoutError: Kafka does not answer.
    """
    async with _connected(settings, "midstream-store-load") as (_, consumer):
        return await _is_newest(consumer, await _bounds(settings, consumer, partitions), partitions)


def sealed_under(value: bytes) -> int:
    """Return under how many partitions a block was sealed; 0 if it cannot be read."""
    try:
        return int(decode_record(topics.VALID.name, value)["partitions"])
    except RecordError:
        return 0


async def _bounds(
    settings: Settings, consumer: AIOKafkaConsumer, partitions: int
) -> dict[TopicPartition, tuple[int, int]]:
    """Return of each partition the first offset and the end."""
    everywhere = [TopicPartition(topics.VALID.name, partition) for partition in range(partitions)]
    async with asyncio.timeout(settings.kafka_timeout_ms / 1000):
        ends: Mapping[TopicPartition, int] = await consumer.end_offsets(everywhere)
        starts: Mapping[TopicPartition, int] = await consumer.beginning_offsets(everywhere)
    return {tp: (starts[tp], ends[tp]) for tp in everywhere}


async def _is_newest(
    consumer: AIOKafkaConsumer, bounds: Mapping[TopicPartition, tuple[int, int]], partitions: int
) -> bool:
    """Whether a partition's newest block is sealed under this number of partitions."""
    for tp, (start, end) in bounds.items():  # one after the other: each may be as long as a message can be
        if start < end and await _number_at(consumer, tp, end - 1) == partitions:
            return True
    return False


async def _is_begun(settings: Settings, consumer: AIOKafkaConsumer, partitions: int) -> bool:
    """Whether blocks are sealed under this number already, or none ever was under another one: the topic is as it was
    created."""
    bounds = await _bounds(settings, consumer, partitions)
    if all(end == 0 for _, end in bounds.values()):
        return partitions == settings.partitions
    return await _is_newest(consumer, bounds, partitions)


async def _waiting_blocks(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, partitions: int
) -> dict[TopicPartition, tuple[int, int]]:
    """Return for each partition that has any the offsets of the first block that ``store`` has not stored, and of the
    end."""
    everywhere = [TopicPartition(topics.VALID.name, partition) for partition in range(partitions)]
    ends: Mapping[TopicPartition, int] = await consumer.end_offsets(everywhere)
    starts: Mapping[TopicPartition, int] = await consumer.beginning_offsets(everywhere)
    stored = await certain_offsets(admin, topics.GROUP_STORE, everywhere)
    first = {tp: max(stored.get(tp, 0), starts[tp]) for tp in everywhere}
    return {tp: (first[tp], ends[tp]) for tp in everywhere if first[tp] < ends[tp]}


async def _first_older(
    consumer: AIOKafkaConsumer, waiting: Mapping[TopicPartition, tuple[int, int]], partitions: int
) -> int:
    """Return how many blocks wait in the first partition found whose first one is sealed under another number, or
    cannot be read; 0 if there is none."""
    for tp, (offset, end) in waiting.items():  # one after the other: each may be as long as a message can be
        if await _number_at(consumer, tp, offset) != partitions:
            return end - offset
    return 0


async def _number_at(consumer: AIOKafkaConsumer, tp: TopicPartition, offset: int) -> int:
    """Return under how many partitions the block at an offset was sealed; 0 if it cannot be read."""
    consumer.assign([tp])
    consumer.seek(tp, offset)
    fetched = await consumer.getmany(tp, timeout_ms=int(_FETCH_S * 1000), max_records=1)
    records = fetched.get(tp, [])
    return sealed_under(records[0].value or b"") if records else 0
