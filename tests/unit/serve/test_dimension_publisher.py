"""The publisher against a double of aiokafka's producer, which a test lets acknowledge, fail or stay silent."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from midstream.dimensions import Dimension, DimensionType, decode_dimension
from midstream.kafka import dimension_publisher
from midstream.kafka.dimension_publisher import MAX_IN_FLIGHT_BYTES, DimensionPublisher, PublishError
from midstream.settings import Settings


def row(id_: str, size: int = 10) -> Dimension:
    return Dimension(DimensionType.USER, id_, '{"a":"' + "x" * size + '"}', 1, False, 2)


class FakeBatch:
    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []
        self.closed = False

    def append(self, *, timestamp: int | None, key: bytes, value: bytes) -> object | None:
        assert not self.closed
        if self.records and sum(len(k) + len(v) for k, v in self.records) + len(value) > 100_000:
            return None
        self.records.append((key, value))
        return object()

    def close(self) -> None:
        self.closed = True


class FakeKafka:
    """Stands for the broker and the producer alike."""

    def __init__(self) -> None:
        self.records: dict[int, list[tuple[bytes, bytes]]] = {0: [], 1: [], 2: []}
        self.error: Exception | None = None
        self.start_error: Exception | None = None
        self.silent = False
        self.pending: list[asyncio.Future[None]] = []
        self.stopped = 0
        self.announced: list[tuple[bytes, bytes]] = []

    def __call__(self, **config: Any) -> "FakeKafka":
        self.config = config
        return self

    async def start(self) -> None:
        if self.start_error:
            raise self.start_error

    async def stop(self) -> None:
        self.stopped += 1

    @property
    def client(self) -> "FakeKafka":
        return self

    async def fetch_all_metadata(self) -> "FakeKafka":
        return self

    def topics(self) -> set[str]:
        return {"dimensions", "schemas"}

    async def partitions_for(self, topic: str) -> set[int]:
        assert topic in self.topics()
        return set(self.records) if topic == "dimensions" else {0}

    async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> None:
        assert topic == "schemas"
        self.announced.append((key, value))

    def create_batch(self) -> FakeBatch:
        return FakeBatch()

    async def send_batch(self, batch: FakeBatch, topic: str, *, partition: int) -> asyncio.Future[None]:
        assert batch.closed
        return self._take(batch.records, partition)

    async def send(self, topic: str, value: bytes, key: bytes, partition: int) -> asyncio.Future[None]:
        return self._take([(key, value)], partition)

    def _take(self, records: list[tuple[bytes, bytes]], partition: int) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.error:
            future.set_exception(self.error)
        elif self.silent:
            self.pending.append(future)
        else:
            self.records[partition] += records
            future.set_result(None)
        return future


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()
    monkeypatch.setattr(dimension_publisher, "AIOKafkaProducer", fake)
    return fake


@pytest.fixture
async def publisher(kafka: FakeKafka) -> AsyncIterator[DimensionPublisher]:
    opened = DimensionPublisher(Settings(kafka_timeout_ms=100))
    yield opened
    await opened.close()


async def test_a_row_is_acknowledged_by_all_replicas_under_its_key(
    publisher: DimensionPublisher, kafka: FakeKafka
) -> None:
    await publisher.publish(row("a/b"))
    assert kafka.config["acks"] == "all"
    key = b"user/a/b"
    assert [(key, decode_dimension(value)) for key, value in kafka.records[zlib.crc32(key) % 3]] == [(key, row("a/b"))]


async def test_bulk_puts_every_row_where_its_key_belongs(publisher: DimensionPublisher, kafka: FakeKafka) -> None:
    bulk = publisher.bulk()
    rows = [row(f"u{number % 500}", size=number % 2000) for number in range(3000)]
    for start in range(0, 3000, 100):
        await bulk.add(rows[start : start + 100])
    await bulk.finish()
    assert bulk.acknowledged == 3000
    for partition, records in kafka.records.items():
        assert records == [
            (one.key, dimension_publisher.encode_dimension(one)) for one in rows if zlib.crc32(one.key) % 3 == partition
        ]


async def test_a_row_larger_than_a_batch_goes_alone(publisher: DimensionPublisher, kafka: FakeKafka) -> None:
    bulk = publisher.bulk()
    await bulk.add([row("a", 200_000), row("a", 5), row("a", 300_000)])
    await bulk.finish()
    assert sum(map(len, kafka.records.values())) == 3


async def test_a_refusal_is_an_error_and_counts_nothing(publisher: DimensionPublisher, kafka: FakeKafka) -> None:
    kafka.error = RequestTimedOutError()
    with pytest.raises(PublishError):
        await publisher.publish(row("a"))
    bulk = publisher.bulk()
    await bulk.add([row("a")])
    with pytest.raises(PublishError):
        await bulk.finish()
    assert bulk.acknowledged == 0
    kafka.error = None
    await publisher.publish(row("a"))


async def test_silence_is_an_error_in_time_and_a_late_answer_does_no_harm(
    publisher: DimensionPublisher, kafka: FakeKafka
) -> None:
    kafka.silent = True
    bulk = publisher.bulk()
    await bulk.add([row("a")])
    for waiting in (publisher.publish(row("a")), bulk.finish()):
        with pytest.raises(PublishError, match="in time"):
            await asyncio.wait_for(waiting, 2)
    kafka.pending[0].set_result(None)
    kafka.pending[1].set_exception(RequestTimedOutError())
    await asyncio.sleep(0)
    assert publisher._in_flight_bytes == 0


async def test_no_more_bytes_are_under_way_than_allowed(publisher: DimensionPublisher, kafka: FakeKafka) -> None:
    kafka.silent = True
    bulk = publisher.bulk()
    with pytest.raises(PublishError, match="takes no rows"):
        await bulk.add([row(f"u{number}", 90_000) for number in range(1000)])
    assert 0 < publisher._in_flight_bytes <= MAX_IN_FLIGHT_BYTES
    with pytest.raises(PublishError, match="takes no rows"):
        await publisher.publish(row("a", 2_000_000))
    for future in kafka.pending:
        future.set_result(None)
    await asyncio.sleep(0)
    assert publisher._in_flight_bytes == 0
    kafka.silent = False
    await publisher.publish(row("a"))


async def test_room_that_comes_in_time_is_waited_for(publisher: DimensionPublisher, kafka: FakeKafka) -> None:
    kafka.silent = True
    bulk = publisher.bulk()

    async def acknowledge() -> None:
        while bulk.acknowledged < 300:
            await asyncio.sleep(0.001)
            while kafka.pending:
                kafka.pending.pop().set_result(None)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(acknowledge())
        for number in range(300):
            await bulk.add([row(f"u{number}", 90_000)])
        await bulk.finish()
    assert bulk.acknowledged == 300


async def test_kafka_away_at_first_is_an_error_and_then_works(publisher: DimensionPublisher, kafka: FakeKafka) -> None:
    kafka.start_error = KafkaConnectionError("nobody there")
    with pytest.raises(PublishError, match="nobody there"):
        await publisher.publish(row("a"))
    assert kafka.stopped == 1
    kafka.start_error = None
    await publisher.publish(row("a"))
