"""Rows of ``batches`` from ``telemetry.raw``, for :class:`processors.store.sink.TableSink`.

``batches`` is written from ``telemetry.raw`` itself, not from what ``validate`` made of it, so that the accounting
compares two things that do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from midstream.metrics import RECEIPTS_STORED
from midstream.receipt import Receipt
from processors.attempts import Lane
from processors.validate.split import RawRecord, UnreadableBatch, read_receipt, receipt_of, split_record

BATCH_TABLE = "batch_rows"

_MS = pa.timestamp("ms", tz="UTC")
_TEXT = pa.string()

BATCHES: pa.Schema = pa.schema(
    [
        ("batch_id", _TEXT),
        ("msgid", _TEXT),
        ("received_at", _MS),
        ("sent_at", _MS),
        ("did", _TEXT),
        ("channel", _TEXT),
        ("app", _TEXT),
        ("credential", _TEXT),
        ("user", _TEXT),
        ("bytes", pa.uint32()),
        ("events", pa.uint32()),
        ("sequence", pa.uint64()),
        ("collector", _TEXT),
        ("topic", _TEXT),
        ("partition", pa.uint32()),
        ("offset", pa.uint64()),
        ("source", _TEXT),
        ("appended_at", _MS),
    ]
)


class Received(NamedTuple):
    """What is kept of a record of ``telemetry.raw``."""

    receipt: Receipt
    topic: str
    partition: int
    offset: int
    appended_ms: int


def read_receipts(
    records: Sequence[ConsumerRecord[Any, Any]], max_inflated_bytes: int, max_events: int, tries: Lane
) -> list[Received]:
    """Return the receipts of records. Only a record without the collector's header is opened, to count its events;
    ``tries`` remembers at which of these a worker failed."""
    kept = []
    for record in records:
        receipt = read_receipt(record.headers, record.timestamp)
        if receipt is None:
            raw = RawRecord(
                record.topic, record.partition, record.offset, record.timestamp, record.value or b"", record.headers
            )
            trial = tries.begin(raw)
            if trial is not None and trial.is_whole:
                receipt = receipt_of(raw)
            else:
                split = split_record(raw, max_inflated_bytes, max_events)
                receipt = split.receipt if isinstance(split, UnreadableBatch) else split[0]
            tries.passed()
        kept.append(Received(receipt, record.topic, record.partition, record.offset, record.timestamp))
    return kept


def batch_rows(received: Sequence[Received]) -> pa.RecordBatch:
    """Return a row of :data:`BATCHES` for each."""
    receipts = [one.receipt for one in received]
    columns: dict[str, list[Any]] = {
        "batch_id": [receipt.batch_id for receipt in receipts],
        "msgid": [receipt.msgid for receipt in receipts],
        "received_at": [receipt.received_at_ms for receipt in receipts],
        "sent_at": [receipt.sent_at_ms for receipt in receipts],
        "did": [receipt.did for receipt in receipts],
        "channel": [receipt.channel for receipt in receipts],
        "app": [receipt.app for receipt in receipts],
        "credential": [receipt.credential for receipt in receipts],
        "user": [receipt.user for receipt in receipts],
        "bytes": [receipt.bytes for receipt in receipts],
        "events": [receipt.events for receipt in receipts],
        "sequence": [receipt.sequence for receipt in receipts],
        "collector": [receipt.collector for receipt in receipts],
        "topic": [one.topic for one in received],
        "partition": [one.partition for one in received],
        "offset": [one.offset for one in received],
        "source": [receipt.source for receipt in receipts],
        "appended_at": [one.appended_ms for one in received],
    }
    RECEIPTS_STORED.inc(len(receipts))
    return pa.RecordBatch.from_pydict(columns, schema=BATCHES)
