"""The folder of built days, which all processes of the api on this machine share.

A day's file and its facts appear whole or not at all: both are written beside, made durable and renamed, the facts
last. One process at a time builds a day: it holds a lock, which the system gives back when it dies. Who waits for a
day holds another, shared; a builder that could take that one alone has nobody left to build for.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from midstream.exhaust.manifest import DayFacts, read_sidecar
from midstream.exhaust.variant import DayKey

DATA, FACTS, PART, LOCK, WAITING, PROGRESS = ".zip", ".json", ".part", ".lock", ".waiting", ".progress"
GONE = ".gone"
"""Facts of a day whose file was removed for want of room: built again, it must have the same bytes."""


@dataclass(frozen=True, slots=True)
class Built:
    """A day's file that is there."""

    path: Path
    facts: DayFacts


class Place:
    """Where a day's file is, or will be."""

    def __init__(self, folder: Path, key: DayKey) -> None:
        self.key = key
        self.folder = folder / key.series[:2] / key.series
        self._stem = f"{key.day}.{key.revision}"

    def path(self, suffix: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / f"{self._stem}{suffix}"

    def built(self) -> Built | None:
        """Return the file, None when it is not there whole."""
        try:
            facts = read_sidecar(self.path(FACTS).read_bytes())
            data = self.path(DATA)
            if data.stat().st_size != facts.bytes:
                return None
        except (FileNotFoundError, ValueError):
            return None
        return Built(data, facts)

    def sha256_before(self) -> str | None:
        """Return the SHA-256 that the file had before it was removed for want of room; None when none is known."""
        try:
            return read_sidecar(self.path(GONE).read_bytes()).sha256
        except (FileNotFoundError, ValueError):
            return None

    def touch(self) -> None:
        """Note that the file is used: those not used for longest go first."""
        with suppress(FileNotFoundError):
            os.utime(self.path(FACTS))

    def keep(self, facts: DayFacts) -> None:
        """Let the part that was written and made durable become the file; ``facts`` must be its own."""
        key = {"dataset": self.key.dataset, "resource": self.key.resource, "revision": self.key.revision}
        kept = {**facts.as_dict(), **key}
        beside = self.path(FACTS + PART)
        with beside.open("wb") as file:
            file.write(json.dumps(kept).encode())
            file.flush()
            os.fsync(file.fileno())
        self.path(PART).rename(self.path(DATA))
        beside.rename(self.path(FACTS))
        self.path(GONE).unlink(missing_ok=True)
        self.path(WAITING).unlink(missing_ok=True)  # nobody has to be waited for any more
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def new_part(self) -> Iterator[IO[bytes]]:
        """Yield the file that is written, empty and unbuffered; it is locked as long as it is written."""
        path = self.path(PART)
        path.unlink(missing_ok=True)  # of a builder that died
        with path.open("xb", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def open_part(self, held: int | None) -> int | None:
        """Return a descriptor of the file that is written now: ``held`` if it still is, which is closed otherwise; None
        when none is written. What a builder that died has left is none: its last bytes may be anything."""
        try:
            newest = os.open(self.path(PART), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return held
        try:
            fcntl.flock(newest, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if held is not None and os.fstat(held).st_ino == os.fstat(newest).st_ino:
                os.close(newest)
                return held
            if held is not None:
                os.close(held)
            return newest
        os.close(newest)
        return held

    def is_being_built(self) -> bool:
        """Whether a process holds the builder's lock."""
        try:
            descriptor = os.open(self.path(LOCK), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def build(self) -> Iterator[bool]:
        """Hold the builder's lock; False when another process does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(self.path(LOCK), fcntl.LOCK_EX)
        if descriptor is None:
            yield False
            return
        try:
            yield True
        finally:
            self.clear()
            os.close(descriptor)

    def clear(self) -> None:
        """Remove what is unfinished. For who holds the builder's lock, and builds no more."""
        for suffix in (PART, FACTS + PART, PROGRESS, LOCK):
            self.path(suffix).unlink(missing_ok=True)

    def wait(self) -> int:
        """Say that somebody waits for the day; return a descriptor that says so until it is closed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = _locked(self.path(WAITING), fcntl.LOCK_SH)
            if descriptor is not None:
                return descriptor
            time.sleep(0.001)  # a builder has just looked whether somebody waits

    def is_wanted(self) -> bool:
        """Whether somebody waits for the day."""
        descriptor = _locked(self.path(WAITING), fcntl.LOCK_EX)
        if descriptor is None:
            return True
        self.path(WAITING).unlink(missing_ok=True)
        os.close(descriptor)
        return False

    def note_progress(self, events: int, of_events: int) -> None:
        """Note how far the builder is."""
        beside = self.path(PROGRESS + PART)
        beside.write_text(json.dumps([events, of_events]))
        beside.rename(self.path(PROGRESS))

    def progress(self) -> tuple[int, int] | None:
        """Return how many events are built, and of how many; None when no builder has said so."""
        try:
            events, of_events = json.loads(self.path(PROGRESS).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return int(events), int(of_events)


@contextmanager
def slot(folder: Path, slots: int) -> Iterator[bool]:
    """Hold one of the places of builders that work at once on this machine; False when all are taken."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(slots):
        descriptor = _locked(folder / f"slot-{number}{LOCK}", fcntl.LOCK_EX)
        if descriptor is not None:
            try:
                yield True
            finally:
                os.close(descriptor)
            return
    yield False


def kept_days(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each file of facts, and what it says."""
    for path in folder.glob(f"??/*/*{FACTS}"):
        try:
            yield path, json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            continue


def remove_day(facts: Path) -> None:
    """Remove a day's file for good; who reads it goes on reading."""
    facts.unlink(missing_ok=True)
    facts.with_suffix(DATA).unlink(missing_ok=True)


def make_room(facts: Path) -> None:
    """Remove a day's file, but not what must be known to build the same again; who reads it goes on reading."""
    facts.rename(facts.with_suffix(GONE))
    facts.with_suffix(DATA).unlink(missing_ok=True)


def _locked(path: Path, how: int) -> int | None:
    """Return a descriptor of a file that is locked now; None when the lock is another's."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass  # its holder has removed it meanwhile: that lock is nobody's
        os.close(descriptor)
