"""Ends a worker when a topic that it reads was deleted and made anew, before it goes on at offsets of the old one.

Kafka drops a group's offsets with the topic; a consumer that runs keeps its place in memory, though, and would pass
over what the new topic has below it. So the worker exits, and on its start begins at the earliest record. An offset
that was committed after the topic had come back is taken back at the start. To read a record once more is harmless:
tokens and arrivals do not depend on offsets.

A worker with a name gets on its start what it had: nothing of a topic that was away for a moment, and no rebalance puts
that right. So a start waits until Kafka has forgotten members that leave a partition to nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from midstream.kafka.admin import COORDINATOR_AWAY, certain_offsets
from midstream.kafka.connection import connection
from midstream.kafka.groups import GroupStates
from midstream.logs import get_logger
from midstream.settings import Settings

log = get_logger(__name__)

_INTERVAL_S = 1.0
_COORDINATOR_INTERVAL_S = 0.2
_LOOKS_WITHOUT_A_TOPIC = 3  # a broker that starts may not know all topics at once
_LOOKS_WITHOUT_A_READER = 3  # a group that takes on partitions needs a moment
_ASSIGNED_INTERVAL_S = 10.0
_MEMBERS_MARGIN_S = 5.0


class TopicRemadeError(Exception):
    """A topic is not the one that was read; the worker must end and begin again."""


@dataclass(frozen=True, slots=True)
class Look:
    """What Kafka says of the partitions of some topics, read in this order."""

    committed: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    firsts: Mapping[TopicPartition, tuple[int, int] | None]
    """Offset and append time of the first record."""


def find_remade(before: Look, now: Look) -> str:
    """Return in words what shows that a topic was made anew between two looks; "" when nothing does. Pure."""
    for tp, end in now.ends.items():
        name = f"{tp.topic}/{tp.partition}"
        if now.committed.get(tp, 0) > end:
            return f"the committed offset of {name} lies beyond its end"
        if end < before.ends.get(tp, 0):
            return f"{name} ends before its former end"
        if tp in before.committed and tp not in now.committed:
            return f"the committed offset of {name} is gone"
        first_before, first = before.firsts.get(tp), now.firsts.get(tp)
        if first_before and first and (first[0] < first_before[0] or _is_other(first_before, first)):
            return f"{name} begins with another record"
    return ""


def _is_other(first_before: tuple[int, int], first: tuple[int, int]) -> bool:
    return first[0] == first_before[0] and first[1] != first_before[1]


def join_looks(before: Look, now: Look) -> Look:
    """Return what is known after ``now``; a topic that is away for the moment is remembered as it was."""
    return Look({**before.committed, **now.committed}, {**before.ends, **now.ends}, {**before.firsts, **now.firsts})


class Unread(NamedTuple):
    """A partition that its group, though it is at work, has given to no member."""

    tp: TopicPartition
    shares: frozenset[tuple[str, bytes]]
    """The group's members, and what each has been given."""


def count_looks(before: Mapping[Unread, int], found: Collection[Unread]) -> dict[Unread, int]:
    """Return in how many looks in a row each has been found. A group that has shared out anew in between is taking care
    of it: a start, or a topic that grows, may leave now this and now that partition to nobody for a moment."""
    return {one: before.get(one, 0) + 1 for one in found}


class TopicGuard:
    """Watches the topics of this worker's groups."""

    def __init__(
        self,
        settings: Settings,
        topics_of_groups: Mapping[str, Sequence[str]],
        others: Sequence[str] = (),
        tell: Callable[[Look], None] = lambda _: None,
    ) -> None:
        """Take the topics that each group reads, and others that the worker must notice to be made anew; ``tell`` is
        called with what is seen every second."""
        self._settings = settings
        self._tell = tell
        self._topics_of_groups = topics_of_groups
        self._others = others
        # A worker that died, or one with a name that ended, stays a member until its session is over.
        self._members_limit_s = settings.kafka_session_timeout_ms / 1000 + _MEMBERS_MARGIN_S

    def prepare(self) -> None:
        """Take back committed offsets that lie beyond the end, and wait for members that read nothing to be gone;
        called before the worker joins its groups.

        Raises:
            KafkaError, TimeoutError: Kafka is away.
            TopicRemadeError: they cannot be taken back while other workers are members.
        """
        loop = asyncio.new_event_loop()  # not asyncio.run, which leaves the thread without one, and Faust wants one
        try:
            loop.run_until_complete(self._prepare())
        finally:
            loop.close()

    async def run(self) -> None:
        """Look once a second until cancelled. While Kafka is away there is nothing to see.

        Raises:
            TopicRemadeError: the worker must end.
        """
        before = Look({}, {}, {})
        away = 0
        unread: dict[Unread, int] = {}
        next_assigned = 0.0
        while True:
            try:
                async with _Kafka(self._settings, self._topics_of_groups, self._others) as kafka:
                    while True:
                        look, missing = await kafka.look()
                        away = away + 1 if missing else 0
                        if away >= _LOOKS_WITHOUT_A_TOPIC:
                            raise TopicRemadeError(f"there is no topic {', '.join(missing)}")
                        if reason := find_remade(before, look):
                            raise TopicRemadeError(reason)
                        before = join_looks(before, look)
                        self._tell(look)
                        if time.monotonic() >= next_assigned:
                            unread = count_looks(unread, await kafka.unassigned(look.ends))
                            for tp in sorted(
                                one.tp for one, looks in unread.items() if looks >= _LOOKS_WITHOUT_A_READER
                            ):
                                raise TopicRemadeError(f"nobody reads {tp.topic}/{tp.partition}")
                            next_assigned = time.monotonic() + _ASSIGNED_INTERVAL_S
                        await asyncio.sleep(_INTERVAL_S)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("topics.not_seen", error=repr(error)[:200])
                await asyncio.sleep(_INTERVAL_S)

    async def _prepare(self) -> None:
        async with _Kafka(self._settings, self._topics_of_groups, self._others) as kafka:
            deadline = time.monotonic() + self._members_limit_s
            look = await self._look_patiently(kafka, deadline)
            while (unread := await kafka.unassigned(look.ends)) and time.monotonic() < deadline:
                log.warning("topics.unread", partitions=sorted(f"{one.tp.topic}/{one.tp.partition}" for one in unread))
                await asyncio.sleep(_INTERVAL_S)
        for group, names in self._topics_of_groups.items():
            beyond = [tp for tp, end in look.ends.items() if tp.topic in names and look.committed.get(tp, 0) > end]
            if beyond:
                log.warning(
                    "offsets.taken_back", group=group, partitions=[f"{tp.topic}/{tp.partition}" for tp in beyond]
                )
                await self._take_back(group, beyond)

    async def _look_patiently(self, kafka: _Kafka, deadline: float) -> Look:
        """Look until the coordinators can tell: Kafka makes their topic when the first group comes."""
        while True:
            try:
                return (await kafka.look())[0]
            except COORDINATOR_AWAY:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_COORDINATOR_INTERVAL_S)

    async def _take_back(self, group: str, partitions: Sequence[TopicPartition]) -> None:
        """Commit 0, which leads to the earliest record. Kafka takes that only while the group has no members."""
        groups = GroupStates(self._settings, self._settings.kafka_timeout_ms)
        try:
            async with asyncio.timeout(self._members_limit_s):
                while (await groups.describe([group])).get(group, ("", 0))[1]:  # noqa: ASYNC110 - Kafka has to be asked
                    await asyncio.sleep(_INTERVAL_S)
        except TimeoutError:
            raise TopicRemadeError(f"offsets of {group} lie beyond the end, and it has members") from None
        finally:
            await groups.close()
        consumer = AIOKafkaConsumer(**connection(self._settings), group_id=group, enable_auto_commit=False)
        async with asyncio.timeout(self._settings.kafka_timeout_ms / 1000):
            await consumer.start()
            try:
                consumer.assign(list(partitions))
                await consumer.commit(dict.fromkeys(partitions, 0))
            finally:
                await consumer.stop()


class _Kafka:
    """Connections for looking, each look bounded in time."""

    def __init__(
        self, settings: Settings, topics_of_groups: Mapping[str, Sequence[str]], others: Sequence[str]
    ) -> None:
        self._timeout_s = settings.kafka_timeout_ms / 1000
        self._topics_of_groups = topics_of_groups
        self._others = others
        self._consumer = AIOKafkaConsumer(**connection(settings), group_id=None)
        self._admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=settings.kafka_timeout_ms)

    async def __aenter__(self) -> _Kafka:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._consumer.start()
                await self._admin.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def look(self) -> tuple[Look, list[str]]:
        """Return what there is, and the topics that are not there.

        Raises:
            KafkaError, TimeoutError: nothing can be said; one of ``COORDINATOR_AWAY`` if a coordinator cannot tell now.
        """
        async with asyncio.timeout(self._timeout_s):
            names = [*self._others, *(name for of in self._topics_of_groups.values() for name in of)]
            described = await self._admin.describe_topics(names)
            partitions = [
                TopicPartition(one["topic"], part["partition"]) for one in described for part in one["partitions"]
            ]
            missing = sorted(set(names) - {tp.topic for tp in partitions})
            committed: dict[TopicPartition, int] = {}
            for group, of in self._topics_of_groups.items():
                committed |= await certain_offsets(self._admin, group, [tp for tp in partitions if tp.topic in of])
            ends = await self._consumer.end_offsets(partitions) if partitions else {}
            found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, 0)) if partitions else {}
            firsts = {tp: (place.offset, place.timestamp) if place else None for tp, place in found.items()}
        return Look(committed, ends, firsts), missing

    async def unassigned(self, ends: Collection[TopicPartition]) -> set[Unread]:
        """Return those of these partitions that their group, though it is at work, has given to no member."""
        left: set[Unread] = set()
        for group, of in self._topics_of_groups.items():
            async with asyncio.timeout(self._timeout_s):
                try:
                    [response] = await self._admin.describe_consumer_groups([group])
                except COORDINATOR_AWAY:
                    continue
            _, _, state, _, _, members = response.groups[0][:6]
            if state != "Stable" or not members:
                continue
            taken = set()
            for member in (one for one in members if one[-1]):  # a leader may leave one out
                taken |= {
                    TopicPartition(*tp) for tp in ConsumerProtocolMemberAssignment.decode(member[-1]).partitions()
                }
            shares = frozenset((member[0], member[-1]) for member in members)
            left |= {Unread(tp, shares) for tp in ends if tp.topic in of and tp not in taken}
        return left
