"""Slots: the folders of a spool, each of one process at a time. All calls block.

The kernel ends a lock with the process that holds it, so a kill -9 leaves no stale one.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ingest.spool.segment import list_segments, sync_folder, write_durably
from midstream.logs import get_logger

_log = get_logger(__name__)

MAX_SLOTS = 4096


class SlotState(msgspec.Struct, frozen=True):
    """What a slot remembers in ``state.json``."""

    id: str
    """Names it in marks."""
    open: bool = False
    """Its mark says open in Kafka, so it may accept batches whether or not Kafka is there."""
    settled: bool = True
    """Its mark, if it ever published one, says closed in Kafka: nobody has to look after it."""


class Slot:
    """A locked slot."""

    def __init__(self, folder: Path, lock_fd: int) -> None:
        self.folder = folder
        self._lock_fd = lock_fd
        self.state = self._read()

    def _read(self) -> SlotState:
        path = self.folder / "state.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=SlotState)
        except FileNotFoundError:
            pass
        except msgspec.DecodeError as error:
            _log.error("spool.state_unreadable", path=str(path), error=str(error))
        return SlotState(str(uuid.uuid4()))

    def write(self, *, is_open: bool, settled: bool) -> None:
        """Remember, durably.

        Raises:
            OSError: it cannot be written; what was remembered stays.
        """
        state = SlotState(self.state.id, is_open, settled)
        if state != self.state:
            write_durably(self.folder / "state.json", msgspec.json.encode(state))
            self.state = state

    @property
    def needs_care(self) -> bool:
        """Whether somebody has to drain it or to close its mark."""
        return not self.state.settled or bool(list_segments(self.folder))

    def release(self) -> None:
        """Let another process have it; done again, it changes nothing."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def take_slot(root: Path) -> Slot:
    """Lock a slot for this process's own batches: the lowest free one that is open, else the lowest free one.

    An open one first: it may accept with Kafka away.

    Raises:
        OSError: the folder cannot be used, or all slots are taken.
    """
    if not root.exists():
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(root.parent)
    for slot in _free_slots(root):
        if slot.state.open:
            return slot
        slot.release()
    for number in range(MAX_SLOTS):
        folder = root / str(number)
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(root)
        found = _try_lock(folder)
        if found is not None:
            return found
    raise OSError(f"all {MAX_SLOTS} slots of {root} are taken")


def find_left_over(root: Path) -> list[str]:
    """Return the names of the slots that no process holds and that need care."""
    found = []
    for slot in _free_slots(root):
        if slot.needs_care:
            found.append(slot.folder.name)
        slot.release()
    return found


def adopt_slot(root: Path, name: str) -> Slot | None:
    """Lock a left-over slot; None when another process was quicker."""
    return _try_lock(root / name)


def _free_slots(root: Path) -> Iterator[Slot]:
    names = sorted((path.name for path in root.iterdir() if path.name.isdecimal()), key=int)
    for name in names:
        slot = _try_lock(root / name)
        if slot is not None:
            yield slot


def _try_lock(folder: Path) -> Slot | None:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    try:
        return Slot(folder, fd)
    except BaseException:
        os.close(fd)
        raise
