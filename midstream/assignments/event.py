"""A write as an event of the topic ``assignment.telemetry``. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from midstream.assignments.fields import FIELDS
from midstream.assignments.rows import VALUE_COLUMNS, PlacedWrite, RecordKey
from midstream.records import encode_record
from midstream.topics import ASSIGNMENT

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


def key_of(key: RecordKey) -> bytes:
    """Return the key of a write's Kafka record: writes of one record share a partition."""
    return f"{key.academy_id}/{key.user_id}/{key.asset_slug}".encode()


def encode_write(placed: PlacedWrite) -> bytes:
    """Return the value of a write's Kafka record."""
    write = placed.write
    values: dict[str, Any] = {}
    for name, column in zip(FIELDS, VALUE_COLUMNS, strict=True):
        value = write.given.get(name, write.computed.get(name))
        values[column] = value.decode() if isinstance(value, bytes) else value
    return encode_record(
        ASSIGNMENT.name,
        {
            "academy_id": write.key.academy_id,
            "asset_slug": write.key.asset_slug,
            "user_id": write.key.user_id,
            "id": placed.id,
            "version": placed.version,
            "author": write.author,
            "written_at_us": (placed.written_at - _EPOCH) // _US,
            "fields": [name for name in FIELDS if name in write.given],
            "computed_fields": [name for name in FIELDS if name in write.computed],
            **values,
        },
    )
