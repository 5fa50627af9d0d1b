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
from processors.store.dedupe.cache import DedupeCache


class Event:
    def __init__(self, partition: int, offset: int, *, stale: bool = False) -> None:
        self.message = SimpleNamespace(
            topic="t", partition=partition, offset=offset, timestamp=1.0, value=b"v", stale=stale
        )
        self.acked = False

    def ack(self) -> None:
        self.acked = True


class Assignment:
    """Every partition ends at 100."""

    def is_current(self, message: Any) -> bool:
        return not message.stale

    def end(self, partition: int) -> int | None:
        return 100


class Storer:
    def __init__(self) -> None:
        self.stored: list[tuple[int, int]] = []

    def store_valid(self, records: list[Any], cache: Any) -> None:
        self.stored += [(record.partition, record.offset) for record in records]


class LoadedCache:
    of = 2

    def __init__(self, partitions: set[int]) -> None:
        self.partitions = frozenset(partitions)
        self.ends: dict[int, int] = {}

    def saw_end(self, partition: int, end: int) -> None:
        self.ends.setdefault(partition, end)


def worker_of(partitions: set[int]) -> tuple[Worker, Storer]:
    worker, storer = Worker.__new__(Worker), Storer()
    worker.storer = storer  # type: ignore[assignment]
    worker._lock = asyncio.Lock()
    worker._cache = LoadedCache(partitions)  # type: ignore[assignment]
    return worker, storer


async def test_records_read_before_a_rebalance_are_left_alone() -> None:
    worker, storer = worker_of({0, 1})
    events = [Event(0, 7, stale=True), Event(1, 3), Event(1, 4, stale=True), Event(5, 8, stale=True)]
    await worker.store_valid(events, Assignment())
    assert storer.stored == [(1, 3)]
    assert [event.acked for event in events] == [False, True, False, False]


async def test_a_partition_of_ours_that_was_not_loaded_ends_the_worker() -> None:
    worker, storer = worker_of({1})
    events = [Event(0, 7), Event(1, 3)]
    with pytest.raises(UnloadedPartitionError, match="0"):
        await worker.store_valid(events, Assignment())
    assert storer.stored == []
    assert not any(event.acked for event in events)


async def test_the_cache_learns_where_partitions_ended_when_they_came() -> None:
    worker, _ = worker_of({0, 1})
    await worker.store_valid([Event(1, 3)], Assignment())
    assert worker._cache.ends == {1: 100}  # type: ignore[attr-defined]


def test_what_was_there_at_the_beginning_may_have_been_tried() -> None:
    cache = DedupeCache(None, 1 << 20, 1_000)  # type: ignore[arg-type]
    assert cache.may_have_been_tried(0, 10**9)  # nothing is known yet
    cache.saw_end(0, 5)
    cache.saw_end(0, 9)  # later: what came since, nobody else had
    assert cache.may_have_been_tried(0, 4)
    assert not cache.may_have_been_tried(0, 5)
    assert cache.may_have_been_tried(1, 5)


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

        def saw_end(self, partition: int, end: int) -> None:
            assert partition in self.partitions

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
    await worker.store_valid([block(4), block(4)], Assignment())
    assert loaded == [([1, 3], 8)]
    await worker.store_valid([block(4), block(8)], Assignment())
    await worker.store_valid([block(8)], Assignment())
    assert loaded == [([1, 3], 8)] * 2
    newest_under[0] = True
    await worker.load_cache([1], 8)
    await worker.store_valid([block(8)], Assignment())
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

        def saw_end(self, partition: int, end: int) -> None:
            assert partition in self.partitions

    worker.storer = Slow()  # type: ignore[assignment]
    worker._empty_cache = Cache  # type: ignore[method-assign, assignment]
    storing = asyncio.create_task(worker.store_valid([Event(1, 1)], Assignment()))
    await asyncio.sleep(0.05)
    await worker.load_cache([1], 2)
    await storing
    assert order == ["stored", "loaded"]
