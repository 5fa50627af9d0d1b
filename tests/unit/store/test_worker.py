"""Which records a worker stores and acknowledges after its partitions changed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from midstream import topics
from midstream.records import encode_record
from midstream.settings import Settings
from processors.store.agent import UnloadedPartitionError, Worker


class Event:
    def __init__(self, partition: int, offset: int) -> None:
        self.message = SimpleNamespace(topic="t", partition=partition, offset=offset, timestamp=1.0, value=b"v")
        self.acked = False

    def ack(self) -> None:
        self.acked = True


class Storer:
    def __init__(self) -> None:
        self.stored: list[tuple[int, int]] = []

    def store_valid(self, records: list[Any], cache: Any) -> None:
        self.stored += [(record.partition, record.offset) for record in records]


def worker_of(partitions: set[int]) -> tuple[Worker, Storer]:
    worker, storer = Worker.__new__(Worker), Storer()
    worker.storer = storer  # type: ignore[assignment]
    worker._lock = asyncio.Lock()
    worker._cache = SimpleNamespace(partitions=frozenset(partitions), of=2)  # type: ignore[assignment]
    return worker, storer


async def test_records_of_a_partition_that_was_given_away_are_left_alone() -> None:
    worker, storer = worker_of({1})
    events = [Event(0, 7), Event(1, 3), Event(0, 8)]
    await worker.store_valid(events, lambda: {1})
    assert storer.stored == [(1, 3)]
    assert [event.acked for event in events] == [False, True, False]


async def test_a_partition_of_ours_that_was_not_loaded_ends_the_worker() -> None:
    worker, storer = worker_of({1})
    events = [Event(0, 7), Event(1, 3)]
    with pytest.raises(UnloadedPartitionError, match="0"):
        await worker.store_valid(events, lambda: {0, 1})
    assert storer.stored == []
    assert not any(event.acked for event in events)


@pytest.fixture
def newest_under(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What is found out when a cache is loaded: whether a block under the present number of partitions is there."""
    answers = [True]

    async def answer(settings: Any, partitions: int) -> bool:
        return answers[0]

    monkeypatch.setattr("processors.store.agent.older_are_stored", answer)
    return answers


async def test_a_cache_loaded_before_older_blocks_were_stored_is_loaded_again(newest_under: list[bool]) -> None:
    worker, _ = worker_of({1})
    loaded: list[tuple[list[int], int]] = []

    class Cache:
        partitions: frozenset[int] = frozenset()
        of = 0

        def load(self, partitions: list[int], of: int) -> None:
            self.partitions, self.of = frozenset(partitions), of
            loaded.append((partitions, of))

    def block(partitions: int) -> Event:
        event = Event(1, 1)
        value = {"rows": 0, "partitions": partitions, "oldest_received_at_ms": 0, "arrow": b""}
        event.message.value = encode_record(topics.VALID.name, value)
        return event

    worker._empty_cache = Cache  # type: ignore[method-assign, assignment]
    worker._settings = Settings()
    newest_under[0] = False
    await worker.follow_partitions([1, 3], 8)
    await worker.follow_partitions([1, 3], 8)
    await worker.store_valid([block(4), block(4)], lambda: {1, 3})
    assert loaded == [([1, 3], 8)]
    await worker.store_valid([block(4), block(8)], lambda: {1, 3})
    await worker.store_valid([block(8)], lambda: {1, 3})
    assert loaded == [([1, 3], 8)] * 2
    newest_under[0] = True
    await worker.load_cache([1], 8)
    await worker.store_valid([block(8)], lambda: {1})
    assert len(loaded) == 3


async def test_loading_waits_for_the_insert_under_way(newest_under: list[bool]) -> None:
    worker, _ = worker_of({1})
    worker._settings = Settings()
    order: list[str] = []

    class Slow:
        def store_valid(self, records: list[Any], cache: Any) -> None:
            import time

            time.sleep(0.2)
            order.append("stored")

    class Cache:
        partitions = frozenset({1})
        of = 2

        def load(self, partitions: list[int], of: int) -> None:
            order.append("loaded")

    worker.storer = Slow()  # type: ignore[assignment]
    worker._empty_cache = Cache  # type: ignore[method-assign, assignment]
    storing = asyncio.create_task(worker.store_valid([Event(1, 1)], lambda: {1}))
    await asyncio.sleep(0.05)
    await worker.load_cache([1], 2)
    await storing
    assert order == ["stored", "loaded"]
