"""When the cache is told that the topic is followed, and where reading begins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaConnectionError
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.dimensions import Dimension, DimensionType, encode_dimension
from midstream.erased import erased_row
from midstream.settings import Settings
from processors.store import listener
from processors.store.erased import ErasedError

PARTITIONS = [TopicPartition(topics.DIMENSIONS.name, 0), TopicPartition(topics.DIMENSIONS.name, 1)]


def row(id_: str) -> bytes:
    return encode_dimension(Dimension(DimensionType.USER, id_, "{}", 1, False, 0))


class Kafka:
    """Two partitions, and what clients see of them."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[bytes]] = {tp: [] for tp in PARTITIONS}
        self.committed: dict[TopicPartition, int] = {}
        self.answers = True
        self.silent_since_s = 0.0
        self.coordinator_failures = 0


class Consumer:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._positions = dict.fromkeys(PARTITIONS, 0)
        self.stopped = False

    async def start(self) -> None:
        if not self._kafka.answers:
            raise KafkaConnectionError

    async def stop(self) -> None:
        self.stopped = True

    def assignment(self) -> set[TopicPartition]:
        return set(PARTITIONS)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self._kafka.logs[tp]) for tp in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    def last_poll_timestamp(self, partition: TopicPartition) -> int:
        return int((time.time() if self._kafka.answers else self._kafka.silent_since_s) * 1000)

    def highwater(self, partition: TopicPartition) -> int | None:
        return len(self._kafka.logs[partition]) if self._kafka.answers else None

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.01)
        taken: dict[TopicPartition, list[Any]] = {}
        for tp in PARTITIONS if self._kafka.answers else []:
            values = self._kafka.logs[tp][self._positions[tp] :][:1]  # one at a time: the end is not reached at once
            taken[tp] = [SimpleNamespace(value=value, partition=tp.partition, offset=0) for value in values]
            self._positions[tp] += len(values)
        return taken


class Admin:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def find_coordinator(self, group: str) -> int:
        return 1

    async def list_consumer_group_offsets(
        self, group: str, *, group_coordinator_id: int, partitions: list[TopicPartition]
    ) -> dict[Any, Any]:
        assert group == topics.GROUP_DIMENSIONS
        if self._kafka.coordinator_failures:
            self._kafka.coordinator_failures -= 1
            raise GroupCoordinatorNotAvailableError
        return {tp: SimpleNamespace(offset=self._kafka.committed.get(tp, -1)) for tp in partitions}


class Heard:
    """Takes what a cache, and the set of erased users, would take, in order."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def offer(self, type_: str, id_: str, attributes: str, version: int, deleted: bool) -> None:
        self.said.append(id_)

    def follow(self, is_followed: bool) -> None:
        self.said.append(is_followed)

    def add(self, digests: Any) -> None:
        self.said.append({"erased": sorted(digests)})


class ClickHouse:
    def rows(self, sql: str, parameters: dict[str, Any]) -> list[tuple[str]]:
        assert parameters == {"type": "erased"}
        return [("d1",)]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kafka]:
    made = Kafka()
    monkeypatch.setattr(listener, "AIOKafkaConsumer", lambda *_, **__: Consumer(made))
    monkeypatch.setattr(listener, "AIOKafkaAdminClient", lambda **_: Admin(made))
    monkeypatch.setattr(listener, "_RETRY_S", 0.01)
    return made


async def run_until(heard: Heard, *conditions: Callable[[], bool]) -> None:
    """Listen until each condition has held in turn."""
    clickhouse: Any = ClickHouse()
    task = asyncio.create_task(listener.listen(Settings(), clickhouse, heard, heard))  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(5):
            for condition in conditions:
                while not condition():
                    assert not task.done(), task.exception()
                    await asyncio.sleep(0.005)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_begins_where_the_sink_stands_and_says_so_once_it_has_caught_up(kafka: Kafka) -> None:
    kafka.logs[PARTITIONS[0]] = [row("stored"), row("waits-1"), row("waits-2")]
    kafka.logs[PARTITIONS[1]] = [row("never stored")]
    kafka.committed = {PARTITIONS[0]: 1}
    kafka.coordinator_failures = 2
    heard = Heard()
    await run_until(heard, lambda: True in heard.said)
    assert heard.said[0] == {"erased": ["d1"]}
    assert set(heard.said[1:4]) == {"waits-1", "waits-2", "never stored"}
    assert heard.said[4:] == [True, False]  # and at its end


async def test_what_was_committed_of_a_topic_that_was_made_anew_says_nothing(kafka: Kafka) -> None:
    kafka.logs[PARTITIONS[0]] = [row("first")]
    kafka.committed = {PARTITIONS[0]: 7}
    heard = Heard()
    await run_until(heard, lambda: True in heard.said)
    assert "first" in heard.said


async def test_while_kafka_is_silent_it_is_not_followed(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()

    def silent() -> bool:
        kafka.answers = False
        kafka.silent_since_s = kafka.silent_since_s or time.time() - listener.SILENCE_S + 0.05
        return heard.said[-1] is False

    def back() -> bool:
        kafka.logs[PARTITIONS[1]] = [row("meanwhile-1"), row("meanwhile-2")]
        kafka.answers = True
        return heard.said.count(True) > 1

    await run_until(heard, lambda: True in heard.said, silent, back)
    assert heard.said == [{"erased": ["d1"]}, True, False, "meanwhile-1", "meanwhile-2", True, False]


async def test_a_burst_of_rows_does_not_end_it(kafka: Kafka) -> None:
    heard = Heard()

    def burst() -> bool:
        kafka.logs[PARTITIONS[0]] = [row(f"u{n}") for n in range(20)]
        return "u19" in heard.said

    await run_until(heard, lambda: True in heard.said, burst)
    assert heard.said == [{"erased": ["d1"]}, True, *(f"u{n}" for n in range(20)), False]


async def test_who_was_erased_is_told_apart(kafka: Kafka) -> None:
    heard = Heard()

    def erased() -> bool:
        kafka.logs[PARTITIONS[0]] = [encode_dimension(erased_row("d2", 0)), b"nonsense", row("u1")]
        return "u1" in heard.said

    await run_until(heard, lambda: True in heard.said, erased)
    assert heard.said == [{"erased": ["d1"]}, True, {"erased": ["d2"]}, "u1", False]


async def test_an_error_goes_up_and_leaves_the_cache_unfollowed(kafka: Kafka) -> None:
    class Full(Heard):
        def add(self, digests: Any) -> None:
            if "d2" in digests:
                raise ErasedError("no key")

    heard = Full()
    kafka.logs[PARTITIONS[0]] = [encode_dimension(erased_row("d2", 0))]
    clickhouse: Any = ClickHouse()
    with pytest.raises(ErasedError):
        await listener.listen(Settings(), clickhouse, heard, heard)  # type: ignore[arg-type]
    assert heard.said == [False]
    kafka.answers = False
    with pytest.raises(KafkaConnectionError):
        await listener.listen(Settings(), clickhouse, heard, heard)  # type: ignore[arg-type]
