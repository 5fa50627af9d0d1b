"""Reading runs of offsets out of Kafka: what is there, what is not, and with how many requests."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from midstream.audit.records import KafkaAwayError, RawReader
from midstream.audit.store import Gap, Place
from midstream.receipt import Receipt, encode_receipt
from midstream.settings import Settings
from midstream.topics import RAW, RECEIPT_HEADER

T = 1_790_000_000_000


class Log:
    """A partition that has these offsets, some of them deleted."""

    def __init__(self, first: int, end: int, deleted: set[int]) -> None:
        self._first = first
        self._end = end
        self._deleted = deleted
        self._at = 0
        self.seeks = 0

    def assign(self, partitions: list[TopicPartition]) -> None:
        assert partitions == [TopicPartition(RAW.name, 3)]

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self._first)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self._end)

    def seek(self, _: TopicPartition, offset: int) -> None:
        assert self._first <= offset < self._end
        self._at = offset
        self.seeks += 1

    async def getone(self, _: TopicPartition) -> Any:
        while self._at in self._deleted:
            self._at += 1
        if self._at >= self._end:
            raise TimeoutError
        receipt = Receipt(batch_id=f"b{self._at}", received_at_ms=T, events=1, sequence=0, collector="c", bytes=1)
        headers = [(RECEIPT_HEADER, encode_receipt(receipt))]
        self._at += 1
        return SimpleNamespace(offset=self._at - 1, timestamp=T, value=b"not looked at", headers=headers)


async def read(log: Log, gaps: Sequence[Gap]) -> dict[int, str]:
    """Return the batch at each offset, "" where there is none."""
    found: dict[int, str] = {}
    reader = RawReader(Settings(kafka="127.0.0.1:1"), cast("Any", log))
    async for gap, receipt in reader.receipts(gaps):
        assert receipt is None or gap.count == 1
        for offset in range(gap.start.offset, gap.start.offset + gap.count):
            assert offset not in found
            found[offset] = "" if receipt is None else receipt.batch_id
    return found


def gap(first: int, count: int) -> Gap:
    return Gap(Place(RAW.name, 3, first), count)


@given(
    st.integers(0, 30),
    st.integers(0, 60),
    st.sets(st.integers(0, 90), max_size=20),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=6),
)
async def test_every_offset_is_told_once(
    first: int, length: int, deleted: set[int], runs: list[tuple[int, int]]
) -> None:
    gaps: list[Gap] = []
    wanted: list[int] = []
    at = 0
    for skipped, count in runs:
        gaps.append(gap(at + skipped, count))
        wanted += range(at + skipped, at + skipped + count)
        at += skipped + count
    end = first + length
    deleted = {offset for offset in deleted if offset != end - 1}  # Kafka's end is that of the last record
    there = {offset: f"b{offset}" for offset in range(first, end) if offset not in deleted}
    assert await read(Log(first, end, deleted), gaps) == {offset: there.get(offset, "") for offset in wanted}


async def test_copies_that_lie_close_are_read_in_one_go() -> None:
    log = Log(0, 20_000, set())
    found = await read(log, [gap(offset, 1) for offset in range(1, 20_000, 2)])
    assert len(found) == 10_000
    assert log.seeks == 1
    log = Log(0, 20_000, set())
    assert len(await read(log, [gap(10, 3), gap(15_000, 3)])) == 6
    assert log.seeks == 2


async def test_kafka_that_stops_answering_is_away() -> None:
    with pytest.raises(KafkaAwayError):
        await read(Log(0, 10, {8, 9}), [gap(7, 3)])
