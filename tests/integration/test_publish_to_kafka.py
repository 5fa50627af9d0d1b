"""The collector's publisher against a real Kafka that is away, frozen, killed, and takes its producer for dead."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import OutOfOrderSequenceNumber
from prometheus_client import REGISTRY

from ingest.publish import KafkaPublisher, NotPublishedError, OutcomeUnknownError
from midstream.kafka.producer import RecordTooLarge, is_refusal
from midstream.receipt import Receipt, decode_receipt, encode_receipt
from midstream.topics import MAX_MESSAGE_BYTES, OVERHEAD_BYTES, RAW, RECEIPT_HEADER
from tests.support.kafka import Broker

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    opened = Broker(tmp_path_factory.mktemp("kafka"), kafka_timeout_ms=2_000)
    await opened.start()
    yield opened
    await opened.kill()


@pytest.fixture
async def publisher(broker: Broker) -> AsyncIterator[KafkaPublisher]:
    opened = KafkaPublisher(broker.settings)
    await opened.start()
    await until_ready(opened)
    yield opened
    await opened.stop(5)


class Sent:
    """Counts what is held, as the collector does."""

    def __init__(self) -> None:
        self.released = 0

    async def publish(self, publisher: KafkaPublisher, name: str, key: bytes = b"", body: bytes = b"x") -> None:
        make = partial(Receipt, batch_id=name, received_at_ms=0, events=0, bytes=len(body))
        await publisher.publish(body, key, lambda c, s: make(collector=c, sequence=s), self.release)

    def release(self) -> None:
        self.released += 1


async def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


async def until_ready(publisher: KafkaPublisher, ready: bool = True, timeout_s: float = 30) -> None:
    await wait_for(lambda: publisher.ready is ready, timeout_s)


async def read_receipts(broker: Broker) -> list[Receipt]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.settings.kafka_servers, fetch_max_bytes=50_000_000)
    await consumer.start()
    try:
        partitions = [TopicPartition(RAW.name, one) for one in range(broker.settings.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        found = []
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [decode_receipt(record.headers) for record in records]
        return [receipt for receipt in found if receipt is not None]
    finally:
        await consumer.stop()


async def set_largest(broker: Broker, size: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.settings.kafka_servers)
    await admin.start()
    try:
        configs = {**RAW.broker_config(), "max.message.bytes": str(size)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, RAW.name, configs=configs)])
    finally:
        await admin.close()


def check_gapless(receipts: list[Receipt]) -> None:
    """Each collector's numbers are 0, 1, 2, ... in the order of the log, with nothing twice."""
    lanes: dict[str, list[int]] = {}
    for receipt in receipts:
        lanes.setdefault(receipt.collector, []).append(receipt.sequence)
    for collector, sequences in lanes.items():
        assert sequences == list(range(len(sequences))), collector


async def test_batches_are_acknowledged_in_order_without_a_gap(broker: Broker, publisher: KafkaPublisher) -> None:
    sent = Sent()
    names = [f"many-{number}" for number in range(2_000)]
    await asyncio.gather(*(sent.publish(publisher, name, name.encode(), b"y" * 3_000) for name in names))
    assert sent.released == len(names)
    receipts = await read_receipts(broker)
    assert {receipt.batch_id for receipt in receipts} >= set(names)
    assert len({receipt.collector for receipt in receipts}) == broker.settings.partitions
    check_gapless(receipts)


async def test_one_device_stays_on_one_partition(broker: Broker, publisher: KafkaPublisher) -> None:
    for number in range(10):
        await Sent().publish(publisher, f"device-{number}", b"device")
    found = [receipt for receipt in await read_receipts(broker) if receipt.batch_id.startswith("device-")]
    assert [receipt.batch_id for receipt in found] == [f"device-{number}" for number in range(10)]
    assert len({receipt.collector for receipt in found}) == 1


async def test_largest_body_is_taken(broker: Broker, publisher: KafkaPublisher) -> None:
    await Sent().publish(publisher, "largest", b"k", bytes(range(256)) * (MAX_MESSAGE_BYTES // 256))
    assert "largest" in {receipt.batch_id for receipt in await read_receipts(broker)}


async def test_stop_waits_for_what_was_handed_over(broker: Broker) -> None:
    publisher = KafkaPublisher(broker.settings)
    await publisher.start()
    await until_ready(publisher)
    sent = Sent()
    waiting = [asyncio.create_task(sent.publish(publisher, f"drained-{number}")) for number in range(50)]
    await asyncio.sleep(0)
    await publisher.stop(5)
    await asyncio.gather(*waiting)
    assert sent.released == 50


async def test_what_the_brokers_own_limit_refuses_is_told_and_costs_no_other_record(
    broker: Broker, publisher: KafkaPublisher
) -> None:
    await set_largest(broker, 20_000)
    try:
        large, small = os.urandom(30_000), b"s"
        sent = Sent()
        with pytest.raises(OutcomeUnknownError):
            await sent.publish(publisher, "refused", b"k", large)
        await until_ready(publisher)
        delivery = await publisher.hand_over(RAW.name, b"k", large, [])
        await asyncio.wait([delivery], timeout=10)
        assert is_refusal(delivery.exception())
        async with publisher.alone() as send:
            for number in range(2):
                with pytest.raises(RecordTooLarge):
                    await send(RAW.name, b"k", large, [])
                receipt = Receipt(
                    batch_id=f"alone-{number}", received_at_ms=0, events=0, bytes=1, sequence=number, collector="alone"
                )
                await send(RAW.name, b"k", small, [(RECEIPT_HEADER, encode_receipt(receipt))])
    finally:
        await set_largest(broker, MAX_MESSAGE_BYTES + OVERHEAD_BYTES)
    await until_ready(publisher)
    found = [receipt.batch_id for receipt in await read_receipts(broker)]
    assert {"alone-0", "alone-1"} <= set(found)
    assert "refused" not in found


async def test_failed_producer_is_made_anew(broker: Broker, publisher: KafkaPublisher) -> None:
    before = REGISTRY.get_sample_value("midstream_producer_rebuilds_total") or 0
    await Sent().publish(publisher, "before-failure", b"k")
    first = publisher._producer.life()
    first.fail(OutOfOrderSequenceNumber())
    assert not publisher.ready
    with pytest.raises(NotPublishedError):
        await Sent().publish(publisher, "during-failure", b"k")
    await until_ready(publisher)
    await Sent().publish(publisher, "after-failure", b"k")
    assert REGISTRY.get_sample_value("midstream_producer_rebuilds_total") == before + 1
    receipts = {receipt.batch_id: receipt for receipt in await read_receipts(broker)}
    assert "during-failure" not in receipts
    assert receipts["after-failure"].collector != receipts["before-failure"].collector
    assert receipts["after-failure"].sequence == 0


async def test_sequence_the_broker_refuses_ends_the_life(broker: Broker, publisher: KafkaPublisher) -> None:
    """What a producer lost to a broker's retention or a fault of its own looks like: a hole in its numbers."""
    await Sent().publish(publisher, "in-order", b"k")
    first = publisher._producer.life()
    manager = first._producer._txn_manager
    for partition in range(broker.settings.partitions):
        manager.increment_sequence_number(TopicPartition(RAW.name, partition), 5)
    sent = Sent()
    with pytest.raises(OutcomeUnknownError):
        await sent.publish(publisher, "out-of-order", b"k")
    assert sent.released == 1
    await until_ready(publisher)
    assert publisher._producer.life() is not first
    await Sent().publish(publisher, "in-order-again", b"k")
    receipts = await read_receipts(broker)
    assert "out-of-order" not in {receipt.batch_id for receipt in receipts}
    check_gapless(receipts)


async def test_frozen_broker_is_noticed_bounded_and_survived(broker: Broker, publisher: KafkaPublisher) -> None:
    sent = Sent()
    broker.freeze()
    try:
        outcomes = await asyncio.gather(
            *(sent.publish(publisher, f"frozen-{number}", b"%d" % number) for number in range(20)),
            return_exceptions=True,
        )
        assert {type(outcome) for outcome in outcomes} <= {OutcomeUnknownError, NotPublishedError}
        assert any(isinstance(outcome, OutcomeUnknownError) for outcome in outcomes)
        assert not publisher.ready
        began = asyncio.get_running_loop().time()
        with pytest.raises(NotPublishedError):
            await Sent().publish(publisher, "while-frozen")
        assert asyncio.get_running_loop().time() - began < 0.5
    finally:
        broker.thaw()
    await until_ready(publisher)
    await Sent().publish(publisher, "thawed")
    await wait_for(lambda: sent.released == 20, 20)
    receipts = await read_receipts(broker)
    assert "while-frozen" not in {receipt.batch_id for receipt in receipts}
    assert len({receipt.batch_id for receipt in receipts}) == len(receipts)  # nothing twice by our own retries
    check_gapless(receipts)


async def test_killed_broker_comes_back(broker: Broker, publisher: KafkaPublisher) -> None:
    await broker.kill()
    with pytest.raises((OutcomeUnknownError, NotPublishedError)):
        await Sent().publish(publisher, "while-dead")
    await until_ready(publisher, ready=False)
    await broker.start()
    await until_ready(publisher)
    await Sent().publish(publisher, "alive-again")
    receipts = await read_receipts(broker)
    assert "alive-again" in {receipt.batch_id for receipt in receipts}
    check_gapless(receipts)


async def test_starts_before_kafka_and_stops_in_time_without_it(tmp_path: Path) -> None:
    later = Broker(tmp_path / "home", kafka_timeout_ms=1_000)
    publisher = KafkaPublisher(later.settings)
    await publisher.start()
    assert not publisher.ready
    sent = Sent()
    with pytest.raises(NotPublishedError):
        await sent.publish(publisher, "too-early")
    assert sent.released == 1
    try:
        await later.start()
        await until_ready(publisher)
        await Sent().publish(publisher, "in-time")
        assert {receipt.batch_id for receipt in await read_receipts(later)} == {"in-time"}
    finally:
        await later.kill()
    unknown = asyncio.create_task(sent.publish(publisher, "never"))
    await asyncio.sleep(0.1)
    began = asyncio.get_running_loop().time()
    await publisher.stop(1)
    assert asyncio.get_running_loop().time() - began < 8
    with pytest.raises((OutcomeUnknownError, NotPublishedError)):
        await unknown
    assert sent.released == 2
