"""Where a worker's consumer goes on after a rebalance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers import aiokafka as driver

from processors import worker
from processors.worker import _ConsumerThread


class Consumer:
    """aiokafka's, as far as it is asked."""

    def __init__(self, committed: dict[str, int | None]) -> None:
        self._committed = committed
        self.at_beginning: list[str] = []
        self._client = SimpleNamespace(cluster=SimpleNamespace(partitions_for_topic=self.partitions))

    async def seek_to_committed(self) -> dict[str, int | None]:
        return self._committed

    async def seek_to_beginning(self, *partitions: str) -> None:
        assert partitions, "without partitions it would mean all"
        self.at_beginning += partitions

    def partitions(self, topic: str) -> set[int] | None:
        return {0, 1, 2} if topic == "known" else None


def make_thread(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> _ConsumerThread:
    async def call_thread(work: Callable[[], Awaitable[Any]]) -> Any:
        return await work()

    thread = object.__new__(_ConsumerThread)
    monkeypatch.setattr(thread, "_ensure_consumer", lambda: consumer, raising=False)
    monkeypatch.setattr(thread, "call_thread", call_thread, raising=False)
    return thread


@pytest.mark.parametrize(
    ("committed", "at_beginning"),
    [
        ({"a": 5, "b": 1}, []),
        ({"a": 5, "b": None}, ["b"]),
        ({"a": 0, "b": 7}, ["a"]),
        ({"a": None, "b": 0}, ["a", "b"]),
    ],
)
async def test_partitions_without_a_committed_offset_begin_at_their_beginning(
    committed: dict[str, int | None], at_beginning: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Consumer(committed)
    found: object = await make_thread(consumer, monkeypatch).seek_to_committed()
    assert found == committed
    assert consumer.at_beginning == at_beginning


def test_the_number_of_partitions_is_that_of_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = make_thread(Consumer({}), monkeypatch)
    assert thread.topic_partitions("known") == 3
    assert thread.topic_partitions("unknown") is None


async def test_a_fetch_waits_longer_for_the_first_record_after_some_seconds_without_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[dict[str, list[int]]] = []

    async def fetch_records(*_: Any, **__: Any) -> dict[str, list[int]]:
        return answers.pop(0)

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch_records)
    now = 1_000.0
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now))
    consumer = SimpleNamespace(_fetcher=SimpleNamespace(), _fetch_min_bytes=64)
    thread = object.__new__(_ConsumerThread)

    async def fetch(found: dict[str, list[int]]) -> tuple[int, int]:
        answers.append(found)
        assert await thread._fetch_records(consumer, set(), timeout=1.0, max_records=5) == found
        return consumer._fetcher._fetch_max_wait_ms, consumer._fetcher._fetch_min_bytes

    busy, idle = (100, 64), (500, 1)
    assert await fetch({}) == idle
    assert await fetch({"t": [1]}) == busy
    now += 2.0
    assert await fetch({}) == busy
    now += 2.0
    assert await fetch({}) == idle
    assert await fetch({"t": [2]}) == busy
