"""The collectors' spool as it lies on disk, from outside: how much of it, and copies of its segments."""

from __future__ import annotations

import shutil
from pathlib import Path

_HEAD_BYTES = 64
"""A segment no larger than this holds no batch."""


def segments(folder: Path) -> list[Path]:
    """Return the segment files of all slots that hold batches."""
    return sorted(path for path in folder.glob("*/*.spool") if _size(path) > _HEAD_BYTES)


def spooled_bytes(folder: Path) -> int:
    """Return the size of all segments."""
    return sum(map(_size, segments(folder)))


def copy_segments(folder: Path, to: Path) -> list[Path]:
    """Copy all segments; return the copies, each below ``to`` as it was below ``folder``."""
    copies = []
    for path in segments(folder):
        copy = to / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError:  # drained meanwhile
            continue
        copies.append(copy)
    return copies


def put_back(copies: list[Path], to: Path, folder: Path) -> int:
    """Put copies made by :func:`copy_segments` back where they were, as far as they are gone; return how many."""
    done = 0
    for copy in copies:
        path = folder / copy.relative_to(to)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copy, path)
            done += 1
    return done


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
