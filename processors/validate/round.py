"""One round: records of ``telemetry.raw`` in, sealed blocks out. Pure: no Kafka, no clock.

A round seals all that it began, so that nothing waits for a later round: the records of a round can be acknowledged as
soon as its blocks are durable, and a partition without traffic holds nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import pyarrow as pa

from midstream.codes import Reason
from midstream.events.judge import Judge, Refused, poison
from midstream.events.typed import ValidEvent
from midstream.metrics import DEAD_LETTERS, POISON_RECORDS, VALIDATED_BATCHES, VALIDATED_EVENTS
from midstream.receipt import Receipt
from midstream.settings import Settings
from processors.validate.rows import LateWindow, Rows
from processors.validate.seal import DeadBlock, Sealed, ValidBlock, spread
from processors.validate.split import (
    RawRecord,
    UnreadableBatch,
    receipt_of,
    split_record,
)

_GROUP_EVENTS = 256
"""So many events, of one record or of many, are taken to columns at once: what there is of them meanwhile, in Python's
objects, has to fit the cache of a core. Of a thousand each event costs a third more, and twice as much where others
use the memory too."""
_SPREAD_ROWS = 1_024
_EVENT_WEIGHT_BYTES = 256


class Trial(Protocol):
    """How a record is worked on that a worker failed at before: see :class:`processors.attempts.Trial`."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is to be a dead letter."""

    @property
    def is_unreadable(self) -> bool:
        """Whether it failed before there were single events, or where all of it was to be a dead letter."""

    @property
    def has_parked(self) -> bool:
        """Whether something of it is to be a dead letter."""

    @property
    def message(self) -> str:
        """What happened."""

    def at(self, index: int) -> None:
        """Note that this event is under work."""

    def times_parked(self, index: int) -> int:
        """0: the event may be worked on. 1: it is a dead letter. More: one of which nothing may be touched."""


class _Group:
    """Events that are judged together."""

    def __init__(self) -> None:
        self.parts: list[tuple[Receipt, int, int]] = []
        """Of each batch that they are of: its receipt, the index of the first one in it, and how many follow."""
        self.raws: list[bytes] = []
        self.size = 0
        """Bytes of their texts."""

    def add(self, receipt: Receipt, start: int, raws: list[bytes], size: int) -> None:
        self.parts.append((receipt, start, len(raws)))
        self.raws += raws
        self.size += size


class _OpenRows:
    """Rows of :data:`midstream.columns.VALID` that are in no block yet."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self.rows = 0
        self.raw_bytes = 0

    def add(self, rows: pa.RecordBatch, raw_bytes: int) -> None:
        self._batches.append(rows)
        self.rows += rows.num_rows
        self.raw_bytes += raw_bytes

    def take(self) -> pa.RecordBatch:
        """Return them all, in order; there are none then."""
        rows = pa.concat_batches(self._batches)
        self._batches, self.rows, self.raw_bytes = [], 0, 0
        return rows


class Round:
    """Splits, judges and seals. Blocks that fill on the way come out of :meth:`add`, the rest out of :meth:`finish`."""

    def __init__(self, settings: Settings, judge: Judge, valid_partitions: int, dead_partition: int) -> None:
        self._judge = judge
        self._max_inflated_bytes = settings.max_inflated_bytes
        self._max_events = settings.max_batch_events
        self._window = LateWindow(settings.late_after_days, settings.early_after_days)
        self._group = _Group()
        self._group_bytes = settings.seal_bytes
        self._open_rows = _OpenRows()
        self._partitions = valid_partitions
        self._blocks = [
            ValidBlock(n, valid_partitions, settings.seal_rows, settings.seal_bytes) for n in range(valid_partitions)
        ]
        self._dead = DeadBlock(dead_partition, settings.seal_bytes)
        self._valid = 0
        self._refused: dict[Reason, int] = {}
        self._batches = 0
        self._weight_bytes = 0

    @property
    def weight_bytes(self) -> int:
        """Bytes of event text taken so far, and something for each event."""
        return self._weight_bytes

    def add(self, record: RawRecord, trial: Trial | None = None) -> Iterator[Sealed | None]:
        """Take one record; yield the blocks that it fills, and None now and then for the caller to see to other
        things.

        A record on trial has a round of its own. Each event of it is taken to its end by itself first, so that
        ``trial`` knows at which one it ends, if it does.
        """
        self._batches += 1
        if trial is not None and trial.has_parked:
            POISON_RECORDS.labels("validate").inc()
        whole = Refused(Reason.POISON, "", trial.message) if trial is not None and trial.is_whole else None
        if whole is not None and trial is not None and trial.is_unreadable:
            yield from self._bury(whole, record.value, receipt_of(record), -1)
            return
        # Without a receipt of its own, only what is in it says how many events the dead letter stands for.
        split = split_record(record, self._max_inflated_bytes, self._max_events)
        if isinstance(split, UnreadableBatch):
            refused = whole or Refused(Reason.BATCH_UNREADABLE, "", split.message)
            yield from self._bury(refused, record.value, split.receipt, -1)
            return
        receipt, batch = split
        if whole is not None:
            yield from self._bury(whole, record.value, receipt, -1)
            return
        start = 0
        while start < len(batch.events):
            group = self._group
            raws = [bytes(element) for element in batch.events[start : start + _GROUP_EVENTS - len(group.raws)]]
            size = sum(map(len, raws))
            self._weight_bytes += size + len(raws) * _EVENT_WEIGHT_BYTES
            group.add(receipt, start, raws, size)
            start += len(raws)
            if len(group.raws) == _GROUP_EVENTS or group.size >= self._group_bytes or trial is not None:
                yield from self._take_group(trial)
                yield None
        if trial is not None:
            trial.at(-1)

    def _take_group(self, trial: Trial | None = None) -> Iterator[Sealed]:
        """Judge the events of the group and take the valid ones to columns; it is empty then."""
        group, self._group = self._group, _Group()
        if not group.raws:
            return
        if trial is None:
            verdicts = self._judge.judge_many(group.raws)
        else:
            ((receipt, start, _),) = group.parts
            verdicts = [self._judge_on_trial(raw, receipt, start + at, trial) for at, raw in enumerate(group.raws)]
        rows = Rows(self._window)
        is_mixed = Refused in {verdict.__class__ for verdict in verdicts}
        begin = 0
        for receipt, start, count in group.parts:
            events, raws = verdicts[begin : begin + count], group.raws[begin : begin + count]
            indexes: Sequence[int] = range(start, start + count)
            begin += count
            if is_mixed:
                indexes = []
                for index, (verdict, raw) in enumerate(zip(events, raws, strict=True), start):
                    if isinstance(verdict, Refused):
                        yield from self._bury(verdict, raw, receipt, index)
                    else:
                        indexes.append(index)
                events = [events[index - start] for index in indexes]
                raws = [raws[index - start] for index in indexes]
            rows.add(receipt, indexes, cast("list[ValidEvent]", events), raws)
        self._valid += len(rows)
        if len(rows):
            self._open_rows.add(rows.to_arrow(), rows.raw_bytes)
        if self._open_rows.rows >= _SPREAD_ROWS or self._open_rows.raw_bytes >= self._group_bytes:
            yield from self._spread()

    def _spread(self) -> Iterator[Sealed]:
        """Hand the open rows to the blocks of their partitions."""
        if self._open_rows.rows:
            for partition, some in spread(self._open_rows.take(), self._partitions):
                yield from self._blocks[partition].add(some)

    def _judge_on_trial(self, raw: bytes, receipt: Receipt, index: int, trial: Trial) -> ValidEvent | Refused:
        """Judge an event; if it may be worked on, seal it once for nothing: in a block with others, nobody would know
        which one was at fault."""
        trial.at(index)
        parked = trial.times_parked(index)
        if parked:
            return poison(raw, trial.message) if parked == 1 else Refused(Reason.POISON, "", trial.message)
        (verdict,) = self._judge.judge_many([raw])
        if isinstance(verdict, Refused):
            dead = DeadBlock(0, 1)
            dead.add(verdict, raw, receipt, index)
            dead.seal()
        else:
            rows = Rows(self._window)
            rows.add(receipt, [index], [verdict], [raw])
            for partition, row in spread(rows.to_arrow(), self._partitions):
                for _ in ValidBlock(partition, self._partitions, 1, 1).add(row):
                    pass
        return verdict

    def _bury(self, refused: Refused, raw: bytes, receipt: Receipt, index: int) -> Iterator[Sealed]:
        self._refused[refused.reason] = self._refused.get(refused.reason, 0) + 1
        yield from self._dead.add(refused, raw, receipt, index)

    def finish(self) -> Iterator[Sealed]:
        """Seal and yield what is still open, and count the round."""
        yield from self._take_group()
        yield from self._spread()
        for block in self._blocks:
            yield from block.seal()
        yield from self._dead.seal()
        VALIDATED_BATCHES.inc(self._batches)
        VALIDATED_EVENTS.labels("valid").inc(self._valid)
        for reason, count in self._refused.items():
            VALIDATED_EVENTS.labels("refused").inc(count)
            DEAD_LETTERS.labels(reason.value).inc(count)
        self._valid, self._batches = 0, 0
        self._refused.clear()
