"""The sinks beside ``store``: a worker that comes or leaves while they insert does not end them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from aiokafka.errors import CommitFailedError, GroupAuthorizationFailedError, IllegalStateError, KafkaError
from aiokafka.structs import TopicPartition

from midstream.settings import Settings
from processors.lease import Lease
from processors.store import sink as module
from processors.store.sink import TableSink

TP = TopicPartition("t", 0)


class FakeConsumer:
    """Gives a record a call, and fails at the first commits."""

    def __init__(self, errors: list[KafkaError], records: int) -> None:
        self._errors = errors
        self._records = records
        self._next = 0
        self.committed: list[int] = []
        self.is_stopped = False

    def __call__(self, *_: Any, **__: Any) -> FakeConsumer:
        return self

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.is_stopped = True

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        if self._next == self._records:
            raise asyncio.CancelledError
        self._next += 1
        return {TP: [SimpleNamespace(offset=self._next - 1)]}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.committed.append(offsets[TP])


class FakeClickHouse:
    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def insert_stream(
        self, table: str, columns: Sequence[str], body: Sequence[bytes | memoryview], *_: Any, **__: Any
    ) -> None:
        with pa.ipc.open_stream(b"".join(body)) as reader:
            self.rows.append(reader.read_all().column("offset").to_pylist())


def make_sink(clickhouse: FakeClickHouse, interval_s: float = 0.0) -> TableSink[int]:
    return TableSink(
        Settings(),
        clickhouse,  # type: ignore[arg-type]
        Lease(60_000),
        topic="t",
        group="g",
        table="batch_rows",
        read=lambda records: [record.offset for record in records],
        to_rows=lambda offsets: pa.record_batch({"offset": pa.array(offsets, pa.int64())}),
        interval_s=interval_s,
    )


@pytest.mark.parametrize("error", [CommitFailedError("rebalanced"), IllegalStateError("not assigned")])
async def test_a_rebalance_between_insert_and_commit_ends_nothing(
    error: KafkaError, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, clickhouse = FakeConsumer([error], records=3), FakeClickHouse()
    monkeypatch.setattr(module, "AIOKafkaConsumer", consumer)
    with pytest.raises(asyncio.CancelledError):
        await make_sink(clickhouse).run()
    assert clickhouse.rows == [[0], [1], [2]]
    assert consumer.committed == [2, 3]
    assert consumer.is_stopped


async def test_another_error_of_the_commit_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, clickhouse = FakeConsumer([GroupAuthorizationFailedError("not for us")], records=3), FakeClickHouse()
    monkeypatch.setattr(module, "AIOKafkaConsumer", consumer)
    with pytest.raises(GroupAuthorizationFailedError):
        await make_sink(clickhouse).run()
    assert consumer.committed == []
    assert consumer.is_stopped


async def test_records_gather_until_it_is_time_and_are_committed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, clickhouse = FakeConsumer([], records=6), FakeClickHouse()
    monkeypatch.setattr(module, "AIOKafkaConsumer", consumer)
    monkeypatch.setattr(module, "_MAX_ROWS", 3)
    with pytest.raises(asyncio.CancelledError):
        await make_sink(clickhouse, interval_s=60.0).run()
    # The first comes at once; then it is as many as may gather, long before the interval is over.
    assert clickhouse.rows == [[0], [1, 2, 3]]
    assert consumer.committed == [1, 4]
