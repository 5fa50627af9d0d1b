"""How much of a disk is free, as a metric."""

from __future__ import annotations

import shutil
from pathlib import Path

from midstream.metrics import DISK_FREE_BYTES, DISK_TOTAL_BYTES


def tell_disk(disk: str, folder: Path) -> None:
    """Tell how many bytes are free where a folder lies; it blocks for as long as the disk takes to say so.

    Raises:
        OSError: the folder cannot be looked at.
    """
    usage = shutil.disk_usage(folder)
    tell_bytes(disk, usage.free, usage.total)


def tell_bytes(disk: str, free: int, total: int) -> None:
    """Tell what somebody else has found out of a disk."""
    DISK_FREE_BYTES.labels(disk).set(free)
    DISK_TOTAL_BYTES.labels(disk).set(total)
