"""Batches in the spools of this host's collectors, read without a lock and without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ingest.spool.format import Record, scan
from ingest.spool.segment import SegmentFile, list_segments
from midstream.topics import RECEIPT_HEADER
from processors.validate.split import RawRecord

_TRIES = 3


def spooled_records(root: Path, max_bytes: int) -> Iterator[RawRecord]:
    """Yield the batches below a spool's folder as records without a topic. Blocks.

    A segment that is gone was acknowledged by Kafka. What is just being written was not answered yet.

    Raises:
        OSError: the spool cannot be read, or holds more than ``max_bytes``.
    """
    for segment in _segments(root):
        if segment.size > max_bytes:
            raise OSError(f"{segment.path.name} is larger than what may be searched")
        max_bytes -= segment.size
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            continue
        for part in scan(data, segment.seed):
            if isinstance(part, Record):
                yield RawRecord("", 0, 0, part.received_at_ms, part.body, [(RECEIPT_HEADER, part.receipt)])


def _segments(root: Path) -> list[SegmentFile]:
    for _ in range(_TRIES):
        try:
            slots = sorted(slot for slot in root.iterdir() if slot.is_dir())
            return [segment for slot in slots for segment in list_segments(slot)]
        except FileNotFoundError:  # a segment was removed just now, or there is no spool at all
            if not root.exists():
                return []
    raise OSError("the spool changes faster than it can be listed")
