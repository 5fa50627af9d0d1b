"""What lies in one slot: its segments in order, counted a segment, so that memory does not grow with the batches."""

from __future__ import annotations

from pathlib import Path

from ingest.spool.segment import SegmentFile, list_segments, recover_segment, sync_folder
from midstream.logs import get_logger

_log = get_logger(__name__)


class Shelf:
    """The segments of a slot. Its counts belong to one event loop; what blocks says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments: dict[int, SegmentFile] = {}
        self._acknowledged: dict[int, SegmentFile] = {}
        self._next_number = 0

    def load(self) -> None:
        """Look through what earlier processes have left. Blocks; called before anything else.

        A segment that the disk does not give counts as older than everything: what is in it was promised.

        Raises:
            OSError: the folder cannot be read.
        """
        for segment in list_segments(self.folder):
            try:
                recover_segment(segment)
            except OSError as error:
                _log.error("spool.segment_unreadable", path=str(segment.path), error=str(error))
                segment.oldest_ms = 0
            self._segments[segment.number] = segment
            self._next_number = segment.number + 1
        if self._segments:
            _log.info("spool.found", folder=str(self.folder), batches=self.batches, bytes=self.bytes)

    def take_number(self) -> int:
        """Return the number of a new segment."""
        self._next_number += 1
        return self._next_number - 1

    def put(self, segment: SegmentFile) -> None:
        """Have a new segment."""
        self._segments[segment.number] = segment

    def acknowledge(self, segment: SegmentFile) -> None:
        """Kafka has all of a segment: only its file is left to delete. A restart forgets that, and drains it again."""
        self._acknowledged[segment.number] = self._segments.pop(segment.number)

    def remove(self, segment: SegmentFile) -> None:
        """Have an acknowledged segment no longer. Its file has been deleted."""
        del self._acknowledged[segment.number]

    def delete_file(self, segment: SegmentFile) -> None:
        """Delete a segment's file. Blocks. Should the machine die before this is on disk, it is drained once more.

        Raises:
            OSError: it cannot be deleted.
        """
        segment.path.unlink(missing_ok=True)
        sync_folder(self.folder)

    @property
    def segments(self) -> list[SegmentFile]:
        """Segments that Kafka does not have, the oldest first."""
        return list(self._segments.values())

    @property
    def acknowledged(self) -> list[SegmentFile]:
        """Segments that Kafka has and whose files are still there."""
        return list(self._acknowledged.values())

    @property
    def empty(self) -> bool:
        """Whether no file is left."""
        return not self._segments and not self._acknowledged

    @property
    def bytes(self) -> int:
        """Bytes on disk, of acknowledged segments too: they take room until they are deleted."""
        return sum(segment.size for segment in (*self._segments.values(), *self._acknowledged.values()))

    @property
    def batches(self) -> int:
        """Batches that Kafka does not have."""
        return sum(segment.batches for segment in self._segments.values())

    @property
    def oldest_ms(self) -> int | None:
        """Receipt of the oldest batch that Kafka does not have, epoch milliseconds; None when there is none."""
        found = [segment.oldest_ms for segment in self._segments.values() if segment.oldest_ms is not None]
        return min(found, default=None)
