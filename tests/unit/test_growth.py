"""When blocks may be sealed under a new number of partitions, by what Kafka says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from midstream import topics
from midstream.kafka.admin import member_ids
from midstream.kafka.sealing import sign
from midstream.records import encode_record
from midstream.settings import Settings
from processors import growth
from processors.growth import PartitionsChangedError, check_older, wait_for_older_blocks

UUID = "0b6c3f2e-7a51-4a8e-9d15-3f1a2b3c4d5e"
SETTINGS = Settings(partitions=4, kafka_session_timeout_ms=10_000, kafka_timeout_ms=10_000)

VALUES = {
    number: encode_record(
        topics.VALID.name, {"rows": 0, "partitions": number, "oldest_received_at_ms": 0, "arrow": b""}
    )
    for number in (4, 8)
}


class Kafka:
    """aiokafka's two clients in one, and a clock that goes on by a second at each look."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.members: list[int] = []
        """By what they seal under."""
        self.blocks: dict[int, list[int]] = {}
        """By partition: what its blocks were sealed under, all kept."""
        self.stored: dict[int, int] = {}
        self.answers_until_known = 0
        """How many times the coordinator cannot tell."""
        self.looks = 0
        self.at: dict[int, Callable[[], None]] = {}
        """What happens before a look."""
        self._place = (0, 0)

    def monotonic(self) -> float:
        return float(self.looks)

    async def describe_topics(self, names: Any) -> list[dict[str, Any]]:
        self.looks += 1
        assert self.looks < 1_000, "it waits for ever"
        self.at.get(self.looks, lambda: None)()
        return [{"topic": topics.VALID.name, "partitions": list(range(self.partitions))}]

    async def describe_consumer_groups(self, groups: list[str]) -> list[Any]:
        if self.answers_until_known:
            self.answers_until_known -= 1
            raise GroupCoordinatorNotAvailableError
        ids = [f"{sign('validate', number)}-{UUID}" for number in self.members]
        return [SimpleNamespace(groups=[(0, groups[0], "Stable", "", "", [(id_,) for id_ in ids])])]

    async def find_coordinator(self, group: str) -> int:
        return 1

    async def list_consumer_group_offsets(
        self, group: str, *, group_coordinator_id: int, partitions: Any
    ) -> dict[TopicPartition, Any]:
        asked = partitions or [TopicPartition(topics.VALID.name, number) for number in self.stored]
        return {tp: OffsetAndMetadata(self.stored.get(tp.partition, -1), "") for tp in asked}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self.blocks.get(tp.partition, ())) for tp in partitions}

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def assign(self, partitions: list[TopicPartition]) -> None:
        pass

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._place = (tp.partition, offset)

    async def getmany(self, tp: TopicPartition, **_: Any) -> dict[TopicPartition, list[Any]]:
        partition, offset = self._place
        return {tp: [SimpleNamespace(value=VALUES[self.blocks[partition][offset]])]}

    def store_all(self) -> None:
        self.stored = {partition: len(blocks) for partition, blocks in self.blocks.items()}


@pytest.fixture
def make_kafka(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kafka]:
    def make(partitions: int, **state: Any) -> Kafka:
        kafka = Kafka(partitions)
        for name, value in state.items():
            setattr(kafka, name, value)

        @asynccontextmanager
        async def connected(*_: Any) -> AsyncIterator[tuple[Kafka, Kafka]]:
            yield kafka, kafka

        monkeypatch.setattr(growth, "_connected", connected)
        monkeypatch.setattr(growth, "_POLL_S", 0)
        monkeypatch.setattr(growth, "_HOLD_POLL_S", 0, raising=False)
        monkeypatch.setattr(growth, "time", kafka)
        return kafka

    return make


async def test_what_cannot_be_told_is_no_group_without_members(make_kafka: Callable[..., Kafka]) -> None:
    kafka = make_kafka(8, blocks={0: [8]}, answers_until_known=1)
    with pytest.raises(GroupCoordinatorNotAvailableError):
        await member_ids(kafka, topics.GROUP_VALIDATE)
    kafka.answers_until_known, kafka.members = 3, [4]
    kafka.at[10] = kafka.members.clear
    assert await wait_for_older_blocks(SETTINGS) == 8
    assert kafka.looks >= 10


@pytest.mark.parametrize(
    ("state", "error"),
    [
        pytest.param({}, False, id="nothing of another number"),
        pytest.param({"blocks": {0: [4, 8]}}, True, id="a block that waits"),
        pytest.param({"blocks": {0: [4, 8]}, "stored": {0: 1}}, False, id="a block that was stored"),
        pytest.param({"members": [4, 8]}, True, id="a member"),
        pytest.param({"partitions": 12}, True, id="the topic has grown again"),
    ],
)
async def test_a_worker_that_has_joined_looks_again(
    make_kafka: Callable[..., Kafka], state: dict[str, Any], error: bool
) -> None:
    make_kafka(**({"partitions": 8, "members": [8], "blocks": {0: [8]}} | state))
    if error:
        with pytest.raises(PartitionsChangedError):
            await check_older(SETTINGS, 8)
    else:
        await check_older(SETTINGS, 8)


HOLD_S = 30  # the session timeout, and twice the time limit of Kafka


def grown(make_kafka: Callable[..., Kafka], **state: Any) -> Kafka:
    """A topic that has grown from 4 to 8, all stored, nobody in the group."""
    kafka = make_kafka(8, blocks={number: [4, 4] for number in range(4)}, **state)
    kafka.store_all()
    return kafka


async def test_a_block_that_was_cut_off_with_its_worker_is_waited_for(make_kafka: Callable[..., Kafka]) -> None:
    """Its worker's session is over; the cut heals while the worker still tries to send it."""
    kafka = grown(make_kafka)
    kafka.at = {20: lambda: kafka.blocks[2].append(4), 40: kafka.store_all}
    assert await wait_for_older_blocks(SETTINGS) == 8
    assert kafka.looks >= 40 + HOLD_S


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(lambda kafka: kafka.members.append(4), id="its member"),
        pytest.param(lambda kafka: setattr(kafka, "answers_until_known", 1), id="that nothing can be said"),
        pytest.param(lambda kafka: setattr(kafka, "partitions", 12), id="that the topic grows again"),
    ],
)
async def test_the_wait_begins_anew_with_whatever_is_seen(
    make_kafka: Callable[..., Kafka], seen: Callable[[Kafka], None]
) -> None:
    kafka = grown(make_kafka)
    kafka.at = {20: lambda: seen(kafka), 25: kafka.members.clear}
    assert await wait_for_older_blocks(SETTINGS) == kafka.partitions
    assert 20 + HOLD_S <= kafka.looks <= 25 + HOLD_S + 5


@pytest.mark.parametrize(
    ("partitions", "blocks"),
    [
        pytest.param(4, {}, id="nothing was ever sealed"),
        pytest.param(4, {0: [4, 4]}, id="it has not grown"),
        pytest.param(8, {0: [4, 4], 6: [8]}, id="another worker has begun"),
    ],
)
async def test_an_ordinary_start_waits_for_nothing(
    make_kafka: Callable[..., Kafka], partitions: int, blocks: dict[int, list[int]]
) -> None:
    kafka = make_kafka(partitions, blocks=blocks)
    kafka.store_all()
    assert await wait_for_older_blocks(SETTINGS) == partitions
    assert kafka.looks == 1


async def test_a_topic_that_has_grown_before_anything_was_sealed_is_held_too(make_kafka: Callable[..., Kafka]) -> None:
    kafka = make_kafka(8)
    assert await wait_for_older_blocks(SETTINGS) == 8
    assert kafka.looks > HOLD_S
