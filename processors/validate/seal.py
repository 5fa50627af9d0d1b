"""Rows become blocks: one block a partition by mid, sealed by rows, by bytes or by the end of a round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from midstream import topics
from midstream.columns import VALID
from midstream.events.judge import Refused
from midstream.receipt import Receipt
from midstream.records import encode_record
from processors.validate.split import partition_of_mid

_RECEIVED_AT = VALID.get_field_index("received_at")
_MID_HASH = VALID.get_field_index("mid_hash")
_RAW = VALID.get_field_index("raw")
# lz4: half the CPU of zstd to write and less to read, for twice the bytes; Kafka's disk is cheaper than either.
_IPC = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_MAX_ARROW_BYTES = topics.MAX_MESSAGE_BYTES - 4096
_ZSTD_FROM_BYTES = 64 * 1024
_DEAD_SEAL_LETTERS = 1_000
_DEAD_SEAL_ORIGINAL_BYTES = 16 * 1024 * 1024
_LETTER_BYTES = 72  # lengths and numbers of a letter in Avro, at the most


@dataclass(frozen=True, slots=True)
class Sealed:
    """A finished Kafka value and where it goes."""

    topic: str
    partition: int
    value: bytes
    rows: int


def spread(rows: pa.RecordBatch, partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield ``(partition, its rows)`` of rows of :data:`midstream.columns.VALID`, which keep their order."""
    if partitions == 1:
        yield 0, rows
        return
    partition_of = partition_of_mid(rows.column(_MID_HASH).to_numpy(), partitions)
    order = np.argsort(partition_of, kind="stable")
    ordered = rows.take(pa.array(order))
    ends = np.cumsum(np.bincount(partition_of.astype(np.int64), minlength=partitions)).tolist()
    for partition, (start, end) in enumerate(pairwise([0, *ends])):
        if start < end:
            yield partition, ordered.slice(start, end - start)


class ValidBlock:
    """The open block of one partition of ``telemetry.valid``."""

    def __init__(self, partition: int, partitions: int, seal_rows: int, seal_bytes: int) -> None:
        self._partition = partition
        self._partitions = partitions
        self._seal_rows = seal_rows
        self._seal_bytes = seal_bytes
        self._chunks: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def add(self, rows: pa.RecordBatch) -> Iterator[Sealed]:
        """Add rows of :data:`midstream.columns.VALID`; yield each block that they fill, sealed after the row that
        fills it."""
        sizes = np.cumsum(pc.binary_length(rows.column(_RAW)).to_numpy(zero_copy_only=False))
        taken = 0  # rows of these that are in blocks
        taken_bytes = 0
        while taken < rows.num_rows:
            full_by_bytes = int(np.searchsorted(sizes, taken_bytes + self._seal_bytes - self._bytes)) + 1
            end = min(full_by_bytes, taken + self._seal_rows - self._rows)
            is_full = end <= rows.num_rows
            end = min(end, rows.num_rows)
            self._chunks.append(rows.slice(taken, end - taken))
            self._rows += end - taken
            self._bytes += int(sizes[end - 1]) - taken_bytes
            taken, taken_bytes = end, int(sizes[end - 1])
            if is_full:
                yield from self.seal()

    def seal(self) -> Iterator[Sealed]:
        """Yield what has been added as a finished value and begin anew; nothing if nothing was added.

        Where what hardly compresses would not fit a message, it is several values.
        """
        if not self._chunks:
            return
        batch = pa.concat_batches(self._chunks)
        self._chunks, self._rows, self._bytes = [], 0, 0
        yield from self._finish(batch)

    def _finish(self, batch: pa.RecordBatch) -> Iterator[Sealed]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, VALID, options=_IPC) as writer:
            writer.write_batch(batch)
        if sink.tell() > _MAX_ARROW_BYTES and batch.num_rows > 1:
            middle = batch.num_rows // 2
            yield from self._finish(batch.slice(0, middle))
            yield from self._finish(batch.slice(middle))
            return
        oldest = pc.min(batch.column(_RECEIVED_AT)).cast(pa.int64()).as_py()
        value = encode_record(
            topics.VALID.name,
            {
                "rows": batch.num_rows,
                "partitions": self._partitions,
                "oldest_received_at_ms": oldest,
                "arrow": sink.getvalue().to_pybytes(),
            },
        )
        yield Sealed(topics.VALID.name, self._partition, value, batch.num_rows)


class DeadBlock:
    """The open block of dead letters."""

    def __init__(self, partition: int, seal_bytes: int) -> None:
        self._partition = partition
        self._seal_bytes = min(seal_bytes, topics.MAX_MESSAGE_BYTES // 4)
        self._letters: list[dict[str, Any]] = []
        self._bytes = 0
        self._original_bytes = 0

    def add(self, refused: Refused, raw: bytes, receipt: Receipt, index: int) -> list[Sealed]:
        """Add the dead letter of one event, or of a whole body (``index`` -1); return the block that it fills, if any.

        Long originals are compressed, each by itself, so that one of the largest size still fits a message; how much
        a block holds is bounded before compression too, for whoever reads it.
        """
        original_bytes, encoding = len(raw), "identity"
        if original_bytes > _ZSTD_FROM_BYTES:
            raw, encoding = zstandard.compress(raw, 3), "zstd"
        letter = {
            "scope": "batch" if index < 0 else "event",
            "code": refused.reason.value,
            "pointer": refused.pointer,
            "message": refused.message,
            "mid": refused.mid,
            "eid": refused.eid,
            "did": refused.did or receipt.did,
            "channel": refused.channel,
            "batch_id": receipt.batch_id,
            "event_index": index,
            "received_at_ms": receipt.received_at_ms,
            "raw": raw,
            "raw_encoding": encoding,
            "events": receipt.events if index < 0 else 1,
        }
        size = _LETTER_BYTES + len(raw) + sum(len(text.encode()) for text in letter.values() if isinstance(text, str))
        sealed: list[Sealed] = []
        if self._letters and (
            self._bytes + size > self._seal_bytes
            or self._original_bytes + original_bytes > _DEAD_SEAL_ORIGINAL_BYTES
            or len(self._letters) >= _DEAD_SEAL_LETTERS
        ):
            sealed.append(self._finish())
        self._bytes += size
        self._original_bytes += original_bytes
        self._letters.append(letter)
        return sealed

    def seal(self) -> list[Sealed]:
        """Return what has been added as a finished value and begin anew; nothing if nothing was added."""
        return [self._finish()] if self._letters else []

    def _finish(self) -> Sealed:
        sealed = Sealed(
            topics.DEAD.name,
            self._partition,
            encode_record(topics.DEAD.name, {"letters": self._letters}),
            len(self._letters),
        )
        self._letters, self._bytes, self._original_bytes = [], 0, 0
        return sealed
