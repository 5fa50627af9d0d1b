"""Which records a worker stores and acknowledges after its partitions changed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

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
    worker._cache = SimpleNamespace(partitions=frozenset(partitions))  # type: ignore[assignment]
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


async def test_loading_waits_for_the_insert_under_way() -> None:
    worker, _ = worker_of({1})
    order: list[str] = []

    class Slow:
        def store_valid(self, records: list[Any], cache: Any) -> None:
            import time

            time.sleep(0.2)
            order.append("stored")

    class Cache:
        partitions = frozenset({1})

        def load(self, partitions: list[int], of: int) -> None:
            order.append("loaded")

    worker.storer = Slow()  # type: ignore[assignment]
    worker._empty_cache = Cache  # type: ignore[method-assign, assignment]
    storing = asyncio.create_task(worker.store_valid([Event(1, 1)], lambda: {1}))
    await asyncio.sleep(0.05)
    await worker.load_cache([1], 2)
    await storing
    assert order == ["stored", "loaded"]
