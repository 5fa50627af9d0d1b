"""The guard against topics made anew, while coordinators cannot tell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from midstream.settings import Settings
from processors import remade
from processors.remade import TopicGuard, TopicRemadeError, Unread, count_looks

A = TopicPartition("t", 0)
GROUP = "g"

Answer = dict[TopicPartition, OffsetAndMetadata] | Exception


class Kafka:
    """aiokafka's two clients in one: says of each look what is committed; the last answer stands."""

    committed: Iterator[Answer]
    last: ClassVar[Answer] = {}
    looks = 0
    shares: Iterator[tuple[str, int]] = iter(())
    last_share: ClassVar[tuple[str, int]] = ("m", 0)
    """The member there is, and the partition that it reads."""

    def __init__(self, **_: Any) -> None:
        pass

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    close = stop

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"topic": name, "partitions": [{"partition": 0}]} for name in names]

    async def find_coordinator(self, group: str) -> int:
        return 1

    async def list_consumer_group_offsets(self, group: str, *, group_coordinator_id: int, partitions: Any) -> Any:
        Kafka.looks += 1
        Kafka.last = next(Kafka.committed, Kafka.last)
        if isinstance(Kafka.last, Exception):
            raise Kafka.last
        return Kafka.last

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 10)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, None]:
        return dict.fromkeys(times, None)

    async def describe_consumer_groups(self, groups: list[str]) -> Any:
        Kafka.last_share = next(Kafka.shares, Kafka.last_share)
        member, partition = Kafka.last_share
        share = ConsumerProtocolMemberAssignment(0, [("t", [partition])], b"").encode()
        members = [(member, "", "", b"", share), ("left out", "", "", b"", b"")]
        return [SimpleNamespace(groups=[(0, GROUP, "Stable", "", "", members)])]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    found: list[Answer] = []
    Kafka.committed, Kafka.looks = iter(found), 0
    Kafka.last, Kafka.last_share, Kafka.shares = {}, ("m", 0), iter(())
    monkeypatch.setattr(remade, "AIOKafkaConsumer", Kafka)
    monkeypatch.setattr(remade, "AIOKafkaAdminClient", Kafka)
    monkeypatch.setattr(remade, "_INTERVAL_S", 0.001)
    return found


def guard() -> TopicGuard:
    return TopicGuard(Settings(), {GROUP: ("t",)})


COMMITTED: Answer = {A: OffsetAndMetadata(7, "")}
NOTHING: Answer = {A: OffsetAndMetadata(-1, "")}
AWAY: list[Answer] = [
    {},  # what aiokafka makes of an answer that is an error as a whole: COORDINATOR_LOAD_IN_PROGRESS
    GroupCoordinatorNotAvailableError(),
]


@pytest.mark.parametrize("away", AWAY, ids=["loads", "not available"])
async def test_a_coordinator_that_cannot_tell_ends_nobody(answers: list[Answer], away: Answer) -> None:
    answers += [COMMITTED, *[away] * 9, COMMITTED]
    task = asyncio.create_task(guard().run())
    while Kafka.looks < len(answers) + 3:
        await asyncio.sleep(0.001)
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_offset_that_is_gone_for_certain_ends_the_worker(answers: list[Answer]) -> None:
    answers += [COMMITTED, AWAY[0], NOTHING]
    with pytest.raises(TopicRemadeError, match="is gone"):
        await asyncio.wait_for(guard().run(), 10)


@pytest.mark.parametrize("away", AWAY, ids=["loads", "not available"])
def test_a_start_waits_until_the_coordinator_can_tell(
    answers: list[Answer], away: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remade, "_COORDINATOR_INTERVAL_S", 0.001, raising=False)
    taken: list[list[TopicPartition]] = []

    async def take_back(_: TopicGuard, group: str, partitions: list[TopicPartition]) -> None:
        taken.append(partitions)

    monkeypatch.setattr(TopicGuard, "_take_back", take_back)
    answers += [away, away, {A: OffsetAndMetadata(11, "")}]  # beyond the end
    guard().prepare()
    assert taken == [[A]]


UNREAD = ("m", 1)
"""It reads another partition than the only one there is."""


@pytest.mark.parametrize(
    ("shares", "ends"),
    [
        pytest.param([UNREAD, UNREAD, UNREAD], True, id="nobody, for three looks"),
        pytest.param([UNREAD, UNREAD, ("m", 0)] * 5, False, id="not for long"),
        pytest.param([("m1", 1), ("m2", 1), ("m3", 1), ("m3", 2), ("m4", 1), ("m", 0)], False, id="the group changes"),
    ],
)
async def test_a_partition_that_nobody_reads_ends_the_worker_once_its_group_is_at_rest(
    answers: list[Answer], shares: list[tuple[str, int]], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remade, "_ASSIGNED_INTERVAL_S", 0)
    answers.append(COMMITTED)
    Kafka.shares = iter(shares)
    task = asyncio.create_task(guard().run())
    if ends:
        with pytest.raises(TopicRemadeError, match="nobody reads t/0"):
            await asyncio.wait_for(task, 10)
        return
    while Kafka.looks < 2 * len(shares):
        await asyncio.sleep(0.001)
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_looks_are_counted_for_each_partition_by_itself() -> None:
    members = frozenset({("m", b"")})
    here, there = (Unread(TopicPartition("t", number), members) for number in (0, 1))
    counted = count_looks(count_looks(count_looks({}, [here]), [there]), [here])
    assert counted == {here: 1}
    assert count_looks(counted, [here, there]) == {here: 2, there: 1}
