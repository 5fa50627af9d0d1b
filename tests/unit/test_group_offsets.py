"""What a group has committed, and whom to ask."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaConnectionError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from midstream.kafka.admin import certain_offsets, committed_offsets

TP = TopicPartition("t", 0)
FOUND = {TP: OffsetAndMetadata(7, "")}


class Cluster:
    """Two brokers, of which one coordinates the group. Each answer that is given before goes before what it says."""

    def __init__(self) -> None:
        self.coordinator = 1
        self.answers: list[Any] = []
        self.asked: list[str] = []

    async def find_coordinator(self, group: str) -> int:
        self.asked.append("who")
        return self.coordinator

    async def list_consumer_group_offsets(self, group: str, *, group_coordinator_id: int, partitions: Any) -> Any:
        self.asked.append(f"{group} {group_coordinator_id}")
        answer = self.answers.pop(0) if self.answers else FOUND
        if isinstance(answer, Exception):
            raise answer
        # aiokafka 0.14 does not look at the error of an answer as a whole
        return answer if group_coordinator_id == self.coordinator else {}


async def committed(cluster: Cluster) -> dict[TopicPartition, int]:
    return await committed_offsets(cluster, "g")  # type: ignore[arg-type]


async def certain(cluster: Cluster) -> dict[TopicPartition, int]:
    return await certain_offsets(cluster, "g", [TP])  # type: ignore[arg-type]


async def test_the_coordinator_is_looked_for_once() -> None:
    cluster = Cluster()
    for _ in range(3):
        assert await committed(cluster) == await certain(cluster) == {TP: 7}
    assert cluster.asked == ["who"] + ["g 1"] * 6


async def test_each_connection_and_group_has_its_own() -> None:
    first, second = Cluster(), Cluster()
    second.coordinator = 2
    for cluster in (first, second):
        await committed(cluster)
        await committed_offsets(cluster, "h")  # type: ignore[arg-type]
    assert first.asked == ["who", "g 1", "who", "h 1"]
    assert second.asked == ["who", "g 2", "who", "h 2"]


async def test_one_that_is_none_any_more_is_not_asked_twice() -> None:
    cluster = Cluster()
    await committed(cluster)
    cluster.coordinator = 2
    with pytest.raises(GroupCoordinatorNotAvailableError):
        await certain(cluster)
    assert await certain(cluster) == {TP: 7}
    assert cluster.asked == ["who", "g 1", "g 1", "who", "g 2"]
    cluster.coordinator = 1
    assert await committed(cluster) == {}
    assert await committed(cluster) == {TP: 7}


async def test_after_an_error_it_is_looked_for() -> None:
    cluster = Cluster()
    await committed(cluster)
    cluster.answers = [KafkaConnectionError("gone"), FOUND]
    with pytest.raises(KafkaConnectionError):
        await committed(cluster)
    assert await committed(cluster) == {TP: 7}
    assert cluster.asked == ["who", "g 1", "g 1", "who", "g 1"]


async def test_a_group_without_offsets() -> None:
    cluster = Cluster()
    cluster.answers = [{}, {TP: OffsetAndMetadata(-1, "")}]
    assert await committed(cluster) == {}
    assert await certain(cluster) == {}
    assert await certain_offsets(cluster, "g", []) == {}  # type: ignore[arg-type]
