"""The file of one worker: what it died of, and the table of records that are suspected."""

from __future__ import annotations

import atexit
import mmap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from midstream.logs import get_logger
from midstream.metrics import SUSPECT_RECORDS
from midstream.settings import Settings
from processors.attempts.file import (
    FILE_BYTES,
    NEW_FILE,
    SUSPECTS,
    Identity,
    LaneArea,
    Phase,
    Suspect,
    lock_and_map,
    read_suspect,
    write_suspect,
)
from processors.attempts.lane import Lane

log = get_logger(__name__)

DIED = "the worker died while working on it"

_SLOTS = 256
_KEPT_S = 3600
"""How long it is remembered that a record was parked: until its offset is committed for sure."""
_FORGOTTEN_S = 7 * 24 * 3600
_APART_S = 600
"""How long records come apart at the most: they may have gone to another worker, or offsets been set back."""


class AttemptsError(Exception):
    """The file cannot be used; the message says why."""


class Attempts:
    """The file of one worker. Threads may share it; :meth:`lane` gives each topic its own marks."""

    def __init__(self, memory: mmap.mmap, limit: int) -> None:
        """``memory`` holds what an earlier life left; ``limit`` is the number of tries of a record."""
        self.turn = threading.Lock()
        self.closed = False
        self.is_careful = False
        """Whether there is a record that may end the process."""
        self.has_entries = False
        """Whether any record has to be worked on with care: one of those, or one that was parked in part."""
        self._memory = memory
        self.limit = limit
        self._lock = threading.RLock()
        self._here = threading.local()
        self._areas = LaneArea.of(memory)
        self._lanes: dict[str, Lane] = {}
        self._suspects: dict[Identity, Suspect] = {}
        self._load()

    @classmethod
    def in_memory(cls, limit: int = 5) -> Attempts:
        """Return one that remembers nothing after the process."""
        memory = mmap.mmap(-1, FILE_BYTES)
        memory[: len(NEW_FILE)] = NEW_FILE
        return cls(memory, limit)

    @classmethod
    def open(cls, settings: Settings, group: str) -> Attempts:
        """Open the file of this worker: by its name, or the first that no living worker has.

        Raises:
            AttemptsError: the folder cannot be written to, or too many workers run here.
        """
        folder = settings.home / "attempts"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for slot in range(_SLOTS):
                name = f"{group}-{settings.worker_id or 'worker'}" + (f".{slot}" if slot else "")
                memory = lock_and_map(folder / name)
                if memory is not None:
                    attempts = cls(memory, settings.record_tries)
                    atexit.register(attempts.close)
                    return attempts
        except OSError as error:
            raise AttemptsError(f"{folder} cannot be used: {error}") from error
        raise AttemptsError(f"{folder}: {_SLOTS} workers of {group} run here")

    def lane(self, topic: str, *, mixes: bool = False) -> Lane:
        """Return the lane of a topic; the same each time. ``mixes``: see :class:`Lane`."""
        if topic not in self._lanes:
            area = next(area for area in self._areas if area.claim(topic))
            self._lanes[topic] = Lane(self, topic, area, mixes=mixes)
            self.look()
        return self._lanes[topic]

    def close(self) -> None:
        """Take all marks off: what ends the process from here on is no fault of a record."""
        self.closed = True
        for area in self._areas:
            area.switch(False)

    def marks(self) -> list[bytes]:
        """Return what is under work now."""
        return [area.mark for area in self._areas if area.is_on]

    def enter(self, lane: Lane | None) -> None:
        """Note which lane this thread works for."""
        self._here.lane = lane

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """As :meth:`Lane.waiting`, for the lane that this thread works for, if any."""
        lane: Lane | None = getattr(self._here, "lane", None)
        if lane is None:
            yield
        else:
            with lane.waiting():
                yield

    # The table

    def _load(self) -> None:
        now_s = int(time.time())
        for place in range(SUSPECTS):
            suspect = read_suspect(self._memory, place)
            if suspect is not None and now_s - suspect.at_s < (_KEPT_S if suspect.passed else _FORGOTTEN_S):
                self._suspects[suspect.identity] = suspect
            else:
                write_suspect(self._memory, place, None)
        died = [area for area in self._areas if area.is_on]
        for area in died:
            identity, index, phase, size = area.read()
            if phase is Phase.JOINT:
                self.set_apart(area, size)
            else:
                self.count(identity, index, size, phase, DIED)
            log.error(
                "record.worker_died",
                topic=identity.topic,
                partition=identity.partition,
                offset=identity.offset,
                event_index=index,
                phase=phase.name.lower(),
            )
        if died:
            self.sync()
        for area in died:  # only now: to count twice is better than not at all
            area.switch(False)
        self.look()

    def look(self) -> None:
        """Work out whether care is needed, and publish how many records are suspected."""
        now_s = int(time.time())
        with self._lock:  # another lane's thread may clear one
            for area in self._areas:
                if area.has_apart and not 0 <= now_s - area.apart_since_s < _APART_S:
                    area.clear_apart()
            suspected = sum(not suspect.passed for suspect in self._suspects.values())
            SUSPECT_RECORDS.set(suspected)
            self.is_careful = suspected > 0 or any(area.has_apart for area in self._areas)
            self.has_entries = self.is_careful or bool(self._suspects)

    def set_apart(self, area: LaneArea, records: int) -> None:
        """Let the last records of an area come apart: one of so many is at fault."""
        area.set_apart(records, int(time.time()))

    def find(self, identity: Identity) -> Suspect | None:
        """Return what is known against a record."""
        return self._suspects.get(identity)

    def count(self, identity: Identity, index: int, size: int, phase: Phase, message: str) -> None:
        """Count a try. When it was the last one, the event at fault (or the record, if no event is) is to be parked.
        If it is only known to be one of several, all events come one by one from then on, and the next try decides.
        Durable after :meth:`sync`."""
        with self._lock:
            suspect = self._suspects.get(identity) or self._take_place(identity)
            suspect.tries += 1
            suspect.index, suspect.size, suspect.phase, suspect.message = index, size, phase, message
            suspect.passed, suspect.at_s = False, int(time.time())
            tries = suspect.tries
            if suspect.tries >= self.limit and size == 1:
                suspect.tries = 0
                suspect.park(index)
            write_suspect(self._memory, suspect.place, suspect)
            log.error(
                "record.failed",
                topic=identity.topic,
                partition=identity.partition,
                offset=identity.offset,
                event_index=index,
                tries=tries,
                of=self.limit,
                reason=message[:500],
            )
            self.look()

    def _take_place(self, identity: Identity) -> Suspect:
        taken = {suspect.place for suspect in self._suspects.values()}
        place = next((place for place in range(SUSPECTS) if place not in taken), None)
        if place is None:  # a full table: whoever is through, else the one that is counted least and longest ago
            out = min(self._suspects.values(), key=lambda one: (not one.passed, bool(one.parked), one.tries, one.at_s))
            log.warning("record.suspicion_dropped", topic=out.identity.topic, offset=out.identity.offset)
            del self._suspects[out.identity]
            place = out.place
        suspect = Suspect(identity, place)
        self._suspects[identity] = suspect
        return suspect

    def acquit(self, identity: Identity) -> None:
        """A record went through: it is forgotten, or, if something of it was parked, kept for a while as done."""
        with self._lock:
            suspect = self._suspects.get(identity)
            if suspect is None or suspect.passed:
                return
            if suspect.parked:
                suspect.passed, suspect.at_s = True, int(time.time())
                write_suspect(self._memory, suspect.place, suspect)
            else:
                del self._suspects[identity]
                write_suspect(self._memory, suspect.place, None)
            self.look()

    def sync(self) -> None:
        """Make durable what was counted."""
        self._memory.flush()
