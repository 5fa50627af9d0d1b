"""The accountant where Kafka is slow and ClickHouse fails: stand-ins for both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import ConsumerRecord, TopicPartition

from midstream import topics
from midstream.clickhouse.client import ClickHouseError
from midstream.kafka import collectors
from midstream.kafka.marks import Mark, decode_mark, encode_mark
from midstream.metrics import UNACCOUNTED_EVENTS
from midstream.settings import Settings
from processors.store.accounting import accountant, marks
from processors.store.accounting.accountant import Accountant
from processors.store.accounting.ledger import SETTLED
from processors.store.accounting.settled import Minute

C = TopicPartition(topics.COLLECTORS.name, 0)
T = 1_790_000_000_000
STALL_S = 0.2
SLOW = Settings(kafka="127.0.0.1:1", kafka_timeout_ms=round(STALL_S * 1000))


def record(offset: int, mark: Mark, *, value: bytes | None = b"") -> ConsumerRecord[Any, Any]:
    key, encoded = encode_mark(mark)
    return cast(
        "ConsumerRecord[Any, Any]",
        SimpleNamespace(key=key, value=encoded if value == b"" else value, offset=offset, timestamp=T + 9_000),
    )


class SlowConsumer:
    """A topic whose records come in pieces, one in some time; after the last piece it has it stops."""

    def __init__(self, records: Sequence[ConsumerRecord[Any, Any]], piece: int, delay_s: float, end: int = -1) -> None:
        self._records = records
        self._piece = piece
        self._delay_s = delay_s
        self._end = len(records) if end < 0 else end
        self._at = 0
        self._assigned: set[TopicPartition] = set()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assignment(self) -> set[TopicPartition]:
        return self._assigned

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._assigned = set(partitions)

    async def seek_to_beginning(self, *_: TopicPartition) -> None:
        self._at = 0

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self._end)

    async def position(self, _: TopicPartition) -> int:
        return self._at

    async def getmany(
        self, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord[Any, Any]]]:
        await asyncio.sleep(self._delay_s)
        taken = list(self._records[self._at : self._at + self._piece])
        self._at += len(taken)
        return {C: taken} if taken else {}


class Admin:
    """Knows that topic."""

    def __init__(self, **_: object) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"topic": name, "partitions": [{"partition": 0}] if name == C.topic else []} for name in names]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Values that were decoded."""
    found: list[bytes] = []

    def decode(value: bytes) -> Mark:
        found.append(value)
        return decode_mark(value)

    monkeypatch.setattr(marks, "decode_mark", decode)
    return found


def reader_of(monkeypatch: pytest.MonkeyPatch, consumer: SlowConsumer) -> marks.MarkReader:
    monkeypatch.setattr(marks, "AIOKafkaConsumer", lambda **_: consumer)
    return marks.MarkReader(SLOW)


MANY = [record(number, Mark(f"c{number % 3}", T + number, T + number, True)) for number in range(1_000)]
NEWEST = {"c0": T + 999, "c1": T + 997, "c2": T + 998}


async def test_many_marks_are_read_however_long_it_takes_and_few_are_decoded(
    monkeypatch: pytest.MonkeyPatch, decoded: list[bytes]
) -> None:
    reader = reader_of(monkeypatch, SlowConsumer(MANY, 100, STALL_S / 4))
    await reader.read_low([C])  # ten pieces, in more than twice the time limit
    assert {id_: mark.low_ms for id_, mark in reader.collectors.open.items()} == NEWEST
    assert len(decoded) == 30


async def test_an_operator_sees_many_marks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "AIOKafkaConsumer", lambda **_: SlowConsumer(MANY, 100, STALL_S / 4))
    monkeypatch.setattr(collectors, "AIOKafkaAdminClient", Admin)
    found = await collectors.read_marks(SLOW, STALL_S)
    assert {id_: mark.low_ms for id_, mark in found.items()} == NEWEST


async def test_without_the_topic_an_operator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing(Admin):
        async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
            return [{"topic": name, "partitions": []} for name in names]

    monkeypatch.setattr(collectors, "AIOKafkaConsumer", lambda **_: SlowConsumer(MANY, 100, 0))
    monkeypatch.setattr(collectors, "AIOKafkaAdminClient", Nothing)
    with pytest.raises(UnknownTopicOrPartitionError):
        await collectors.read_marks(SLOW, STALL_S)


async def test_marks_that_do_not_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(monkeypatch, SlowConsumer(MANY, 100, STALL_S / 10, end=1_001))
    async with asyncio.timeout(20 * STALL_S):
        with pytest.raises(TimeoutError):
            await reader.read_low([C])
    assert {id_: mark.low_ms for id_, mark in reader.collectors.open.items()} == NEWEST


async def test_the_first_round_may_take_longer_than_the_limit_of_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = SlowConsumer(MANY, 100, STALL_S / 4)
    monkeypatch.setattr(marks, "AIOKafkaConsumer", lambda **_: consumer)
    monkeypatch.setattr(accountant, "AIOKafkaConsumer", lambda **_: consumer)

    async def no_offsets(*_: object) -> dict[TopicPartition, int]:
        return {}

    async def partitions(_: object, *names: str) -> list[TopicPartition]:
        return [C] if names == (C.topic,) else []

    class Done(Exception):  # noqa: N818 - it is no error
        """It came so far."""

    def publish(self: Accountant) -> None:
        raise Done(len(self._marks.collectors.open))

    monkeypatch.setattr(accountant, "AIOKafkaAdminClient", Admin)
    monkeypatch.setattr(accountant, "partitions_of", partitions)
    monkeypatch.setattr(accountant, "first_records", no_offsets)
    monkeypatch.setattr(accountant, "committed_offsets", no_offsets)
    monkeypatch.setattr(Accountant, "_publish", publish)
    with pytest.raises(Done, match="3"):
        await Accountant(SLOW, cast("Any", None), cast("Any", None))._publish_progress()


def test_marks_are_compacted_while_collectors_run() -> None:
    """Kafka compacts closed segments only; a segment takes the largest record."""
    config = topics.COLLECTORS.broker_config()
    assert config["cleanup.policy"] == "compact"
    assert int(config["segment.ms"]) <= int(config["max.compaction.lag.ms"]) <= 3_600_000
    assert int(config["max.message.bytes"]) < int(config["segment.bytes"]) <= 32 * 1024 * 1024
    assert float(config["min.cleanable.dirty.ratio"]) <= 0.01


@pytest.mark.parametrize("at_ms", [T, T + 60_000])
@pytest.mark.parametrize("piece", [1, 2])
async def test_a_collector_whose_record_was_deleted_is_shown_closed(
    monkeypatch: pytest.MonkeyPatch, at_ms: int, piece: int
) -> None:
    """Its clock may be ahead of Kafka's. Where its mark came with the deletion, Kafka's time is all there is."""
    mark = Mark("lost", T, at_ms, True, spooled_batches=3)
    reader = reader_of(monkeypatch, SlowConsumer([record(0, mark), record(1, mark, value=None)], piece, 0))
    assert await reader.read_low([C]) == 0
    shown = reader.changed["lost"]
    assert not shown.open
    if piece == 1:
        assert shown.at_ms > at_ms
        assert shown.spooled_batches == 3
    else:
        assert shown.at_ms == T + 9_000


class FailingLedger:
    """One minute with a loss; a write fails as often as told."""

    AT_S = 1_790_000_040 // 60 * 60

    def __init__(self, fails: dict[str, int]) -> None:
        self.fails = fails
        self.losses: dict[int, int] = {}
        self.settled_ms = 0
        self.counted_twice = threading.Event()
        """So the first count is in the metric."""
        self._counts = 0

    def _fail(self, call: str) -> None:
        if self.fails.get(call, 0):
            self.fails[call] -= 1
            raise ClickHouseError(f"{call} is refused", None)

    def watermark(self, name: str) -> int:
        assert name == SETTLED
        return self.settled_ms

    def oldest_batch_ms(self) -> int:
        return self.AT_S * 1000

    def minutes(self, since_s: int, until_s: int) -> list[Minute]:
        self._fail("minutes")
        return [Minute(self.AT_S, 0, 7)] if since_s <= self.AT_S < until_s else []

    def recheck_losses(self) -> None:
        self._fail("recheck_losses")

    def write_losses(self, minutes: Sequence[Minute]) -> None:
        self._fail("write_losses")
        self.losses |= {minute.at_s: minute.wrong for minute in minutes}

    def write_watermark(self, name: str, reached_ms: int) -> None:
        assert name == SETTLED
        self._fail("write_watermark")
        self.settled_ms = reached_ms

    def lost(self) -> int:
        self._fail("lost")
        self._counts += not any(self.fails.values())
        if self._counts > 1:
            self.counted_twice.set()
        return sum(self.losses.values())


@pytest.mark.parametrize("call", ["minutes", "write_losses", "write_watermark", "lost", "recheck_losses"])
async def test_a_loss_is_kept_whatever_fails_meanwhile(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(accountant, "_RECONCILE_S", 0.0)
    monkeypatch.setattr(accountant, "_now_ms", lambda: (FailingLedger.AT_S + 600) * 1000)
    ledger = FailingLedger({call: 2})
    watching = Accountant(SLOW, cast("Any", None), cast("Any", None))
    monkeypatch.setattr(watching, "_ledger", ledger)
    monkeypatch.setattr(watching, "_published_ms", (FailingLedger.AT_S + 300) * 1000)
    UNACCOUNTED_EVENTS.set(0)
    task = asyncio.create_task(watching._watch_losses())
    try:
        assert await asyncio.to_thread(ledger.counted_twice.wait, 20)
    finally:
        task.cancel()
    assert ledger.losses == {FailingLedger.AT_S: 7}
    assert ledger.settled_ms == (FailingLedger.AT_S + 300) * 1000
    assert UNACCOUNTED_EVENTS._value.get() == 7


@pytest.mark.parametrize(
    ("took_s", "waits_s"),
    [(0.0, 10), (0.05, 10), (0.25, 25), (0.6, 60), (1.2, 60), (1.5, 60), (2.0, 80), (60.0, 2_400)],
)
def test_a_look_that_takes_long_is_rare_but_once_a_minute_while_that_is_a_fortieth(
    took_s: float, waits_s: float
) -> None:
    assert accountant.pause_s(took_s) == pytest.approx(waits_s)
