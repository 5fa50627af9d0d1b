"""Rows of ``duplicates`` and ``rejects``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import zstandard

from midstream import topics
from midstream.codes import Reason
from midstream.receipt import foreign_receipt
from midstream.records import RecordError, decode_record
from processors.store.dedupe.recent import Arrival

DUPLICATE_TABLE = "duplicate_rows"
REJECT_TABLE = "reject_rows"

_MS = pa.timestamp("ms", tz="UTC")
_TEXT = pa.string()

DUPLICATES: pa.Schema = pa.schema(
    [
        ("mid", _TEXT),
        ("eid", _TEXT),
        ("did", _TEXT),
        ("channel", _TEXT),
        ("batch_id", _TEXT),
        ("event_index", pa.uint32()),
        ("received_at", _MS),
        ("first_batch_id", _TEXT),
        ("first_event_index", pa.uint32()),
        ("first_received_at", _MS),
        ("differs", pa.bool_()),
        ("stored_at", _MS),
    ]
)
REJECTS: pa.Schema = pa.schema(
    [
        ("mid", _TEXT),
        ("eid", _TEXT),
        ("did", _TEXT),
        ("channel", _TEXT),
        ("batch_id", _TEXT),
        ("event_index", pa.int32()),
        ("received_at", _MS),
        ("code", _TEXT),
        ("pointer", _TEXT),
        ("message", _TEXT),
        ("raw", pa.binary()),  # the original bytes, which may not be UTF-8
        ("scope", _TEXT),
        ("events", pa.uint32()),  # arrivals that the row stands for
        ("stored_at", _MS),
    ]
)
_SHARED = ("mid", "eid", "did", "channel", "batch_id", "event_index")
_MAX_ORIGINAL_BYTES = 64 * 1024 * 1024
_MAX_MESSAGE_CHARS = 500

Letter = dict[str, Any]
"""One of the letters of ``schemas/avro/telemetry.dead``."""


def duplicate_rows(
    block: pa.RecordBatch, found: Sequence[tuple[int, Arrival]], differs: Sequence[bool], stored_at_ms: int
) -> list[dict[str, Any]]:
    """Return a row for each duplicate of a block, given by index with the arrival that stored the mid."""
    rows: list[dict[str, Any]] = (
        block.select([*_SHARED, "received_at"]).take(pa.array([row for row, _ in found], pa.int64())).to_pylist()
    )
    for row, (_, first), differing in zip(rows, found, differs, strict=True):
        row["first_batch_id"] = first.batch_id
        row["first_event_index"] = first.event_index
        row["first_received_at"] = first.received_at_ms
        row["differs"] = differing
        row["stored_at"] = stored_at_ms
    return rows


def read_letters(value: bytes) -> list[Letter]:
    """Return the dead letters of a ``telemetry.dead`` value.

    Raises:
        RecordError: the value cannot be read.
    """
    letters: list[Letter] = decode_record(topics.DEAD.name, value)["letters"]
    return letters


def reject_row(letter: Letter, stored_at_ms: int) -> dict[str, Any]:
    """Return the row of a dead letter.

    Raises:
        RecordError: its original cannot be read.
    """
    raw = letter["raw"]
    if letter["raw_encoding"] == "zstd":
        try:
            raw = zstandard.decompress(raw, max_output_size=_MAX_ORIGINAL_BYTES)
        except zstandard.ZstdError as error:
            raise RecordError(f"the original of a dead letter cannot be read: {error}") from error
    row = {name: letter[name] for name in (*_SHARED, "code", "pointer", "message", "scope", "events")}
    return row | {"received_at": letter["received_at_ms"], "raw": raw, "stored_at": stored_at_ms}


def reject_rows(value: bytes, stored_at_ms: int) -> list[dict[str, Any]]:
    """Return a row for each dead letter of a ``telemetry.dead`` value.

    Raises:
        RecordError: the value cannot be read.
    """
    return [reject_row(letter, stored_at_ms) for letter in read_letters(value)]


def poison_letter(letter: Letter, message: str, stored_at_ms: int) -> dict[str, Any]:
    """Return the row that keeps a dead letter which cannot be worked on; ``raw`` is what the letter holds, compressed
    or not."""
    row = {name: letter[name] for name in (*_SHARED, "pointer", "scope", "events", "raw")}
    text = f"{message} (of a dead letter {letter['code']}, raw: {letter['raw_encoding']})"
    poison = {"code": Reason.POISON.value, "message": text[:_MAX_MESSAGE_CHARS]}
    return row | poison | {"received_at": letter["received_at_ms"], "stored_at": stored_at_ms}


def poison_record(
    topic: str, partition: int, offset: int, append_time_ms: int, value: bytes, message: str, stored_at_ms: int
) -> dict[str, Any]:
    """Return the row of ``rejects`` that keeps a record which cannot be read, whole."""
    receipt = foreign_receipt(topic, partition, offset, append_time_ms, len(value), 1)
    return {
        "mid": "",
        "eid": "",
        "did": "",
        "channel": "",
        "batch_id": receipt.batch_id,
        "event_index": -1,
        "received_at": append_time_ms,
        "code": Reason.POISON.value,
        "pointer": "",
        "message": f"{topic}/{partition}/{offset}: {message}",
        "raw": value,
        "scope": "batch",
        "events": 0,  # nobody knows which arrivals were in it
        "stored_at": stored_at_ms,
    }


def poison_event(row: pa.RecordBatch, message: str, stored_at_ms: int) -> dict[str, Any]:
    """Return the row of ``rejects`` that keeps an event which ClickHouse refuses; ``row`` is the one row of its
    insert."""
    values = row.select([*_SHARED, "received_at", "raw"]).to_pylist()[0]
    poison: dict[str, Any] = values | {
        "raw": values["raw"].encode(),
        "code": Reason.POISON.value,
        "pointer": "",
        "message": message[:_MAX_MESSAGE_CHARS],
        "scope": "event",
        "events": 1,
        "stored_at": stored_at_ms,
    }
    return poison


def to_arrow(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return rows as one record batch; times are epoch milliseconds or datetimes."""
    return pa.RecordBatch.from_pylist(list(rows), schema=schema)
