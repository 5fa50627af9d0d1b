"""Values of the topic ``collectors``: what each collector slot promises about the batches it answered with 200.

A slot says ``open`` before it answers its first batch and goes on to publish marks while it lives, so the least
``low_ms`` of all open slots is a moment before which every accepted batch is in ``telemetry.raw``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from midstream.records import decode_record, encode_record
from midstream.topics import COLLECTORS


@dataclass(frozen=True, slots=True)
class Mark:
    """One slot's promise. Times are epoch milliseconds of the collector's clock."""

    id: str
    low_ms: int
    """Every batch with ``received_at`` before it that was answered 200 is acknowledged in ``telemetry.raw``."""
    at_ms: int
    open: bool
    spooled_batches: int = 0
    spooled_bytes: int = 0
    oldest_ms: int = 0
    """Receipt of the oldest batch in the spool; 0: it is empty."""


def encode_mark(mark: Mark) -> tuple[bytes, bytes]:
    """Return key and value of the record."""
    return mark.id.encode(), encode_record(COLLECTORS.name, asdict(mark))


def decode_mark(value: bytes) -> Mark:
    """Return the mark of a record's value.

    Raises:
        midstream.records.RecordError: the value is none.
    """
    record: dict[str, Any] = decode_record(COLLECTORS.name, value)
    return Mark(**record)
