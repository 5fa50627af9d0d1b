"""What the collector knows about an accepted batch: travels as one header of its ``telemetry.raw`` record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import NAMESPACE_URL, uuid5

import msgspec

from midstream.events.times import MAX_MS
from midstream.topics import RECEIPT_HEADER

# A header that another producer wrote must not hold what no column takes.
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one accepted request. Times are epoch milliseconds (UTC); "" stands for a fact that is not known.

    ``batch_id`` is made once, when the request is accepted, and never changes after; with the index of an
    event in ``events`` it names an arrival.
    """

    batch_id: _Id
    received_at_ms: _TimeMs
    events: _Count
    """Number of elements of ``events``."""
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """Counts the batches of one ``collector`` from 0 without a gap."""
    collector: str
    """Names one life of a producer and a partition, or ending in ``/spool`` one life of a collector's spool."""
    bytes: _Count
    """Size of the body as it was sent."""
    credential: str = ""
    did: str = ""
    """``params.did`` of the body, else ``X-Device-Id``."""
    channel: str = ""
    app: str = ""
    msgid: str = ""
    sent_at_ms: _TimeMs | None = None
    """The batch's own ``ets`` or ``ts``."""
    user: str = ""
    """``sub`` of ``X-Authenticated-User-Token``."""
    source: str = "http"
    """``http``, ``spool`` (it was kept on disk until Kafka took it) or ``import`` (another producer's record)."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Receipt)


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the header's value."""
    return _encoder.encode(receipt)


def decode_receipt(headers: Sequence[tuple[str, bytes]]) -> Receipt | None:
    """Return the receipt among a record's headers, or None when there is none that can be read."""
    for name, value in headers:
        if name == RECEIPT_HEADER:
            try:
                return _decoder.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
                return None  # TypeError: Kafka's headers may be null
    return None


def foreign_receipt(topic: str, partition: int, offset: int, append_time_ms: int, size: int, events: int) -> Receipt:
    """Make the receipt of a record that did not come through the collector: the same for every reading of it.

    The append time is part of the identity because offsets repeat when a topic is made anew.
    """
    return Receipt(
        batch_id=str(uuid5(NAMESPACE_URL, f"kafka:{topic}/{partition}/{offset}/{append_time_ms}")),
        received_at_ms=append_time_ms,
        events=events,
        sequence=offset,
        collector=f"{topic}/{partition}",
        bytes=size,
        source="import",
    )
