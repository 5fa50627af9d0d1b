"""What the harness asks of Kafka and does to it as an operator would: offsets, groups, topics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.kafka.admin import ensure_topics
from midstream.kafka.marks import Mark, decode_mark
from midstream.settings import Settings
from tests.support.waiting import wait_until

GROUPS: dict[str, tuple[str, ...]] = {
    topics.GROUP_VALIDATE: (topics.RAW.name,),
    topics.GROUP_STORE: (topics.VALID.name, topics.DEAD.name),
    topics.GROUP_RECEIPTS: (topics.RAW.name,),
}
"""Groups that events pass, with what each reads."""

Ends = dict[TopicPartition, int]

_TIMEOUT_S = 10.0
_T = TypeVar("_T")


class Kafka:
    """Asks and tells one broker; each call connects anew, because brokers come and go here."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def lag(self) -> dict[str, int]:
        """Return the records that each group of :data:`GROUPS` has not committed.

        Raises:
            OSError, KafkaError, TimeoutError: it cannot be asked now.
        """
        return self._run(self._lag())

    def ends(self, topic: str) -> Ends:
        """Return the end of each partition. Raises as :meth:`lag`."""
        return self._run(self._ends_of(topic))

    def committed(self, group: str) -> Ends:
        """Return what a group has committed. Raises as :meth:`lag`."""
        return self._run(self._committed_by(group))

    def marks(self) -> list[Mark]:
        """Return the newest mark of each collector. Raises as :meth:`lag`."""
        return self._run(self._marks())

    def delete_group(self, group: str, timeout_s: float = 60.0) -> None:
        """Delete a group with its offsets, once it has no members."""

        def deleted() -> bool:
            return self._run(self._delete(group))

        wait_until(f"group {group} is deleted", deleted, timeout_s, 0.5)

    def set_back(self, group: str, timeout_s: float = 60.0) -> None:
        """Set a group to the beginning of what it reads, once it has no members."""
        self.delete_group(group, timeout_s)  # which waits until the members are gone
        self._run(self._commit_zeros(group))

    def make_anew(self, topic: str) -> None:
        """Delete a topic and create it again, empty, as the pipeline's start does."""
        self._run(self._delete_topic(topic))
        self._run(ensure_topics(self._settings, timeout_s=30))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        async def bounded() -> _T:
            async with asyncio.timeout(6 * _TIMEOUT_S):
                return await work

        return asyncio.run(bounded())

    def _admin(self) -> AIOKafkaAdminClient:
        return AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka_servers, request_timeout_ms=10_000)

    async def _ends_of(self, topic: str) -> Ends:
        admin, consumer = self._admin(), AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_servers)
        try:
            await consumer.start()
            await admin.start()
            return await _ends(admin, consumer, topic)
        finally:
            await consumer.stop()
            await admin.close()

    async def _committed_by(self, group: str) -> Ends:
        admin = self._admin()
        try:
            await admin.start()
            return await _committed(admin, group)
        finally:
            await admin.close()

    async def _marks(self) -> list[Mark]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_servers, auto_offset_reset="earliest")
        try:
            await consumer.start()
            numbers = await _numbers(self._admin())
            places = [TopicPartition(topics.COLLECTORS.name, number) for number in numbers]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            newest: dict[str, Mark] = {}
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for mark in (decode_mark(record.value) for record in records if record.value):
                        newest[mark.id] = mark
            return list(newest.values())
        finally:
            await consumer.stop()

    async def _lag(self) -> dict[str, int]:
        admin, consumer = self._admin(), AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_servers)
        try:
            await consumer.start()
            await admin.start()
            lag = {}
            for group, names in GROUPS.items():
                ends = {tp: end for name in names for tp, end in (await _ends(admin, consumer, name)).items()}
                committed = await _committed(admin, group)
                lag[group] = sum(max(end - committed.get(tp, 0), 0) for tp, end in ends.items())
            return lag
        finally:
            await consumer.stop()
            await admin.close()

    async def _delete(self, group: str) -> bool:
        admin = self._admin()
        try:
            await admin.start()
            coordinator = await admin.find_coordinator(group)
            response = await admin._client.send(coordinator, DeleteGroupsRequest([group]))
            codes = [for_code(code).__name__ for _, code in response.results]
            return all(name in ("NoError", "GroupIdNotFound", "GroupIdNotFoundError") for name in codes)
        finally:
            await admin.close()

    async def _commit_zeros(self, group: str) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_servers, group_id=group, enable_auto_commit=False
        )
        try:
            await consumer.start()
            places = [tp for name in GROUPS[group] for tp in await self._ends_of(name)]
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))
        finally:
            await consumer.stop()

    async def _delete_topic(self, topic: str) -> None:
        admin = self._admin()
        try:
            await admin.start()
            response = await admin.delete_topics([topic], timeout_ms=10_000)
            for name, code in response.topic_error_codes:
                assert code == 0, f"{name} cannot be deleted: {for_code(code).__name__}"
            # Nothing tells when a topic is gone.
            while any(entry["topic"] == topic for entry in await admin.describe_topics(None)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        finally:
            await admin.close()


async def _numbers(admin: AIOKafkaAdminClient) -> list[int]:
    try:
        await admin.start()
        [described] = await admin.describe_topics([topics.COLLECTORS.name])
        return [part["partition"] for part in described["partitions"]]
    finally:
        await admin.close()


async def _ends(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, topic: str) -> Ends:
    [described] = await admin.describe_topics([topic])
    ends: Ends = await consumer.end_offsets(
        [TopicPartition(topic, part["partition"]) for part in described["partitions"]]
    )
    return ends


async def _committed(admin: AIOKafkaAdminClient, group: str) -> Ends:
    return {tp: max(entry.offset, 0) for tp, entry in (await admin.list_consumer_group_offsets(group)).items()}
