"""The sinks beside ``store``: a worker that comes or leaves while they insert does not end them."""

from __future__ import annotations

import asyncio
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
        self.inserts = 0

    def insert_stream(self, *_: Any, **__: Any) -> None:
        self.inserts += 1


def make_sink(clickhouse: FakeClickHouse) -> TableSink:
    return TableSink(
        Settings(),
        clickhouse,  # type: ignore[arg-type]
        Lease(60_000),
        topic="t",
        group="g",
        table="batch_rows",
        schema=pa.schema([("offset", pa.int64())]),
        to_rows=lambda records: [{"offset": record.offset} for record in records],
        interval_s=0.0,
    )


@pytest.mark.parametrize("error", [CommitFailedError("rebalanced"), IllegalStateError("not assigned")])
async def test_a_rebalance_between_insert_and_commit_ends_nothing(
    error: KafkaError, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, clickhouse = FakeConsumer([error], records=3), FakeClickHouse()
    monkeypatch.setattr(module, "AIOKafkaConsumer", consumer)
    with pytest.raises(asyncio.CancelledError):
        await make_sink(clickhouse).run()
    assert clickhouse.inserts == 3
    assert consumer.committed == [2, 3]
    assert consumer.is_stopped


async def test_another_error_of_the_commit_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, clickhouse = FakeConsumer([GroupAuthorizationFailedError("not for us")], records=3), FakeClickHouse()
    monkeypatch.setattr(module, "AIOKafkaConsumer", consumer)
    with pytest.raises(GroupAuthorizationFailedError):
        await make_sink(clickhouse).run()
    assert consumer.committed == []
    assert consumer.is_stopped
