"""One round: records of ``telemetry.raw`` in, sealed blocks out. Pure: no Kafka, no clock.

A round seals all that it began, so that nothing waits for a later round: the records of a round can be acknowledged as
soon as its blocks are durable, and a partition without traffic holds nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator

from midstream.codes import Reason
from midstream.events.judge import Judge, Refused
from midstream.metrics import DEAD_LETTERS, VALIDATED_BATCHES, VALIDATED_EVENTS
from midstream.receipt import Receipt
from midstream.settings import Settings
from processors.validate.rows import LateWindow, make_row
from processors.validate.seal import DeadBlock, Sealed, ValidBlock
from processors.validate.split import RawRecord, UnreadableBatch, hash_mid, partition_of_mid, split_record

_BREATHE_EVENTS = 250
_EVENT_WEIGHT_BYTES = 256


class Round:
    """Splits, judges and seals. Blocks that fill on the way come out of :meth:`add`, the rest out of :meth:`finish`."""

    def __init__(self, settings: Settings, judge: Judge, valid_partitions: int, dead_partition: int) -> None:
        self._judge = judge
        self._max_inflated_bytes = settings.max_inflated_bytes
        self._max_events = settings.max_batch_events
        self._window = LateWindow(settings.late_after_days, settings.early_after_days)
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

    def add(self, record: RawRecord) -> Iterator[Sealed | None]:
        """Take one record; yield the blocks that it fills, and None now and then for the caller to see to other
        things."""
        self._batches += 1
        split = split_record(record, self._max_inflated_bytes, self._max_events)
        if isinstance(split, UnreadableBatch):
            refused = Refused(Reason.BATCH_UNREADABLE, "", split.message)
            yield from self._bury(refused, record.value, split.receipt, -1)
            return
        receipt, batch = split
        for index, element in enumerate(batch.events):
            if index % _BREATHE_EVENTS == _BREATHE_EVENTS - 1:
                yield None
            raw = bytes(element)
            self._weight_bytes += len(raw) + _EVENT_WEIGHT_BYTES
            verdict = self._judge.judge(raw)
            if isinstance(verdict, Refused):
                yield from self._bury(verdict, raw, receipt, index)
                continue
            event = verdict.event
            mid_hash = hash_mid(event["mid"])
            row = make_row(event, raw, raw.decode(), receipt, index, mid_hash, self._window)
            self._valid += 1
            yield from self._blocks[partition_of_mid(mid_hash, self._partitions)].add(row, len(raw))

    def _bury(self, refused: Refused, raw: bytes, receipt: Receipt, index: int) -> Iterator[Sealed]:
        self._refused[refused.reason] = self._refused.get(refused.reason, 0) + 1
        yield from self._dead.add(refused, raw, receipt, index)

    def finish(self) -> Iterator[Sealed]:
        """Seal and yield what is still open, and count the round."""
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
