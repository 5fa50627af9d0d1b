"""Rows of ``batches`` and of ``dimensions`` from their topics, for :class:`processors.store.sink.TableSink`.

``batches`` is written from ``telemetry.raw`` itself, not from what ``validate`` made of it, so that the accounting
compares two things that do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from midstream.metrics import RECEIPTS_STORED
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


def batch_rows(
    records: Sequence[ConsumerRecord[Any, Any]], max_inflated_bytes: int, max_events: int, tries: Lane
) -> list[dict[str, Any]]:
    """Return a row a record of ``telemetry.raw``. Only a record without the collector's header is opened, to count
    its events; ``tries`` remembers at which of these a worker failed."""
    rows = []
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
        rows.append(
            {
                "batch_id": receipt.batch_id,
                "msgid": receipt.msgid,
                "received_at": receipt.received_at_ms,
                "sent_at": receipt.sent_at_ms,
                "did": receipt.did,
                "channel": receipt.channel,
                "app": receipt.app,
                "credential": receipt.credential,
                "user": receipt.user,
                "bytes": receipt.bytes,
                "events": receipt.events,
                "sequence": receipt.sequence,
                "collector": receipt.collector,
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "source": receipt.source,
                "appended_at": record.timestamp,
            }
        )
    RECEIPTS_STORED.inc(len(rows))
    return rows
