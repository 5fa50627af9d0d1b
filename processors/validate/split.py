"""A record of ``telemetry.raw`` into its receipt and the text of each event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from midstream.envelope import Batch, EnvelopeError, holds_more_than, read_envelope
from midstream.inflate import InflateError, inflate
from midstream.receipt import Receipt, decode_receipt, foreign_receipt

_DAY_MS = 24 * 3600 * 1000
_OLD_MS = 365 * _DAY_MS  # a batch may have waited for long before it came to Kafka
_EARLY_MS = _DAY_MS

_Hash = TypeVar("_Hash", int, npt.NDArray[np.uint64])


@dataclass(frozen=True, slots=True)
class RawRecord:
    """What ``validate`` and the receipts need of a Kafka record."""

    topic: str
    partition: int
    offset: int
    append_time_ms: int
    value: bytes
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class UnreadableBatch:
    """A record that is no batch; the collector lets none through, so it came another way."""

    receipt: Receipt
    message: str


def split_record(
    record: RawRecord, max_inflated_bytes: int, max_events: int
) -> tuple[Receipt, Batch] | UnreadableBatch:
    """Return the receipt and the events of a record.

    A record without a receipt that can be read gets one that is the same at every reading.
    """
    receipt = read_receipt(record.headers, record.append_time_ms)
    try:
        body = inflate(record.value, max_inflated_bytes)
        if receipt is None and holds_more_than(body, max_events):  # the collector lets none through
            raise EnvelopeError(f"more than {max_events} events")
        batch = read_envelope(body)
    except (InflateError, EnvelopeError) as error:
        return UnreadableBatch(receipt or _foreign(record, events=1), str(error))
    if receipt is None:
        receipt = msgspec.structs.replace(
            _foreign(record, events=len(batch.events)), did=batch.did, msgid=batch.msgid, sent_at_ms=batch.sent_at_ms
        )
    return receipt, batch


def read_receipt(headers: Sequence[tuple[str, bytes]], append_time_ms: int) -> Receipt | None:
    """Return the receipt among a record's headers as everything downstream takes it, or None when there is none.

    A time of receipt that is far from when Kafka appended the record (``append_time_ms``, epoch milliseconds) is
    replaced by that.
    """
    receipt = decode_receipt(headers)
    if receipt is not None and not -_EARLY_MS <= append_time_ms - receipt.received_at_ms <= _OLD_MS:
        # No collector's clock is this wrong. Tables are partitioned by receipt, and a block over many years is refused.
        return msgspec.structs.replace(receipt, received_at_ms=append_time_ms)
    return receipt


def receipt_of(record: RawRecord) -> Receipt:
    """Return the receipt of a record whose body must not be touched: what is not known counts as one event."""
    return read_receipt(record.headers, record.append_time_ms) or _foreign(record, events=1)


def _foreign(record: RawRecord, events: int) -> Receipt:
    return foreign_receipt(
        record.topic, record.partition, record.offset, record.append_time_ms, len(record.value), events
    )


def partition_of_mid(mid_hash: _Hash, partitions: int) -> _Hash:
    """Return the partition of ``telemetry.valid`` that all arrivals of a mid go to; of an array, element by element."""
    return mid_hash % partitions


def hash_mid(mid: str) -> int:
    """Return xxh3_64 of the mid's UTF-8, which ClickHouse computes as ``xxh3(mid)``."""
    return xxhash.xxh3_64_intdigest(mid.encode())
