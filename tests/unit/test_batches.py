"""Batches: what waits leaves together, in order, and nobody who handed over a record waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, ProducerClosed
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from midstream.kafka.batches import Batches

_LINGER_S = 0.02
_BATCH_BYTES = 1_000
_TIMEOUT_S = 5.0


class _Producer:
    """Takes batches and leaves to the test when they are acknowledged."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, list[bytes], float]] = []
        self.under_way: list[asyncio.Future[object]] = []
        self.fails: Exception | None = None

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(_BATCH_BYTES, 0)

    async def send_batch(self, batch: BatchBuilder, _topic: str, *, partition: int) -> asyncio.Future[object]:
        if self.fails is not None:
            raise self.fails
        loop = asyncio.get_running_loop()
        values = [record.value or b"" for record in DefaultRecordBatch(batch._build())]
        self.taken.append((partition, values, loop.time()))
        acknowledged: asyncio.Future[object] = loop.create_future()
        self.under_way.append(acknowledged)
        return acknowledged

    def acknowledge(self, error: BaseException | None = None) -> None:
        for future in self.under_way:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self.under_way.clear()


class _World:
    def __init__(self) -> None:
        self.producer = _Producer()
        self.ended: list[BaseException | None] = []
        self.released: list[bytes] = []
        self.batches = Batches(cast(AIOKafkaProducer, self.producer), _LINGER_S, 2_000, self.ended.append)

    async def add(self, partition: int, value: bytes, timeout_s: float = _TIMEOUT_S) -> asyncio.Future[object]:
        return await self.batches.add(
            "t", partition, None, value, (("h", b"v"),), timeout_s, lambda: self.released.append(value[:2])
        )

    async def taken(self, count: int) -> list[tuple[int, list[bytes], float]]:
        async with asyncio.timeout(_TIMEOUT_S):
            while len(self.producer.taken) < count:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)
        return self.producer.taken


async def test_all_partitions_leave_together_when_the_first_record_has_lingered() -> None:
    world = _World()
    first = await world.add(0, b"a")
    await asyncio.sleep(_LINGER_S / 2)
    second = await world.add(1, b"b")
    third = await world.add(0, b"c")
    taken = await world.taken(2)
    assert [(partition, values) for partition, values, _ in taken] == [(0, [b"a", b"c"]), (1, [b"b"])]
    assert taken[1][2] - taken[0][2] < _LINGER_S / 4, "the second partition does not linger by itself"
    assert not first.done()
    world.producer.acknowledge()
    await asyncio.gather(first, second, third)
    assert world.ended == [None, None]
    assert sorted(world.released) == [b"a", b"b", b"c"]
    world.batches.close(ProducerClosed())


async def test_a_partition_may_be_new_while_others_leave() -> None:
    world = _World()
    begun, go_on = asyncio.Event(), asyncio.Event()
    send_batch = world.producer.send_batch

    async def send_slowly(batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[object]:
        begun.set()
        await go_on.wait()
        return await send_batch(batch, topic, partition=partition)

    world.producer.send_batch = send_slowly  # type: ignore[method-assign]
    deliveries = [await world.add(0, b"a")]
    async with asyncio.timeout(_TIMEOUT_S):
        await begun.wait()
    deliveries.append(await world.add(1, b"b"))
    go_on.set()
    assert [partition for partition, _, _ in await world.taken(2)] == [0, 1]
    world.producer.acknowledge()
    await asyncio.gather(*deliveries)
    world.batches.close(ProducerClosed())


async def test_a_partition_has_one_batch_under_way_and_holds_up_no_other() -> None:
    world = _World()
    first = await world.add(0, b"a")
    await world.taken(1)
    later = [await world.add(0, b"b"), await world.add(1, b"c")]
    await world.taken(2)
    await asyncio.sleep(2 * _LINGER_S)
    assert [values for _, values, _ in world.producer.taken] == [[b"a"], [b"c"]]
    world.producer.acknowledge()
    await first
    await world.taken(3)
    assert world.producer.taken[2][:2] == (0, [b"b"])
    world.producer.acknowledge()
    await asyncio.gather(*later)
    world.batches.close(ProducerClosed())


async def test_who_waits_for_room_keeps_its_turn() -> None:
    world = _World()
    values = [b"%02d" % number + b"x" * 400 for number in range(9)]  # two fit into a batch
    adding = [asyncio.create_task(world.add(0, value)) for value in values]
    for batch in range(1, 6):
        await world.taken(batch)
        world.producer.acknowledge()
    await asyncio.gather(*adding)
    assert [value for _, some, _ in world.producer.taken for value in some] == values
    assert max(len(some) for _, some, _ in world.producer.taken) == 2
    world.batches.close(ProducerClosed())


async def test_no_room_in_time_is_said_and_the_record_is_not_sent() -> None:
    world = _World()
    kept = [await world.add(0, b"a" * 800)]
    await world.taken(1)
    kept.append(await world.add(0, b"b" * 800))
    with pytest.raises(KafkaTimeoutError):
        await world.add(0, b"c" * 800, timeout_s=0.05)
    world.producer.acknowledge()
    await world.taken(2)
    world.producer.acknowledge()
    await asyncio.gather(*kept)
    assert world.released == [b"aa", b"bb"]
    world.batches.close(ProducerClosed())


async def test_a_record_that_is_too_large_is_refused_and_harms_none() -> None:
    world = _World()
    with pytest.raises(MessageSizeTooLargeError):
        await world.add(0, b"x" * 2_001)
    large = await world.add(0, b"y" * 1_900)  # larger than a batch, and the first in one
    await world.taken(1)
    world.producer.acknowledge()
    await large
    assert world.ended == [None]
    world.batches.close(ProducerClosed())


@pytest.mark.parametrize("while_handed_over", [True, False])
async def test_a_failure_reaches_everybody(while_handed_over: bool) -> None:
    world = _World()
    if while_handed_over:
        world.producer.fails = AssertionError("Unrecognized partition")
    waiting = [await world.add(0, b"a"), await world.add(0, b"b")]
    if not while_handed_over:
        await world.taken(1)
        world.producer.acknowledge(KafkaError("lost"))
    for one in await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), _TIMEOUT_S):
        assert isinstance(one, KafkaError)
    assert [type(error) for error in world.ended] == [KafkaError]
    assert world.released == [b"a", b"b"]
    world.batches.close(ProducerClosed())


async def test_who_stops_waiting_takes_nothing_back() -> None:
    world = _World()
    delivery = await world.add(0, b"a")
    delivery.cancel()
    await world.taken(1)
    assert world.released == []
    world.producer.acknowledge()
    await asyncio.sleep(0.01)
    assert world.producer.taken[0][1] == [b"a"]
    assert world.released == [b"a"]
    assert world.ended == [None]
    world.batches.close(ProducerClosed())


async def test_a_flush_ends_when_all_has_ended() -> None:
    world = _World()
    first = await world.add(0, b"a")
    await world.taken(1)
    second = await world.add(0, b"b")
    flushing = asyncio.create_task(world.batches.flush())
    await asyncio.sleep(2 * _LINGER_S)
    assert not flushing.done()
    world.producer.acknowledge()
    await world.taken(2)
    world.producer.acknowledge()
    await asyncio.wait_for(flushing, _TIMEOUT_S)
    await asyncio.gather(first, second)
    world.batches.close(ProducerClosed())


async def test_what_is_given_up_fails_and_nothing_is_taken_after_it() -> None:
    world = _World()
    under_way = await world.add(0, b"a")
    await world.taken(1)
    growing: Any = await world.add(0, b"b" * 800)
    too_late = asyncio.create_task(world.add(0, b"c" * 800))
    await asyncio.sleep(0)
    world.batches.close(ProducerClosed())
    for one in (under_way, growing, too_late):
        with pytest.raises(ProducerClosed):
            await asyncio.wait_for(one, _TIMEOUT_S)
    with pytest.raises(ProducerClosed):
        await world.add(1, b"d")
    assert world.released == [b"a", b"bb"]
    world.producer.acknowledge()  # too late, and it changes nothing
    await asyncio.sleep(0.01)
    assert world.released == [b"a", b"bb"]
