"""Where a worker's consumer goes on after a rebalance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

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
