"""Which records a worker died of, or failed at: remembered over its deaths, so that none restarts it for ever.

A worker writes down what it is working on before it begins: a plain store into a mapped file, which outlives the
process but not the machine, for a microsecond a record. Whatever ends the process in the midst of a step (a
segmentation fault, the kernel short of memory, a stack that overflows) leaves that mark behind, and the next life finds
it; an exception is written down on the way out. Each counts as a try of that record, durably. A record is known by
topic, partition, offset and a hash of its value: offsets repeat when a topic is made anew.

What says nothing about a record is not counted: while a worker waits for ClickHouse or Kafka the mark is off, and an
error of theirs, a lost lease or a clean stop leaves none. A `kill -9` that comes from outside can hit a step by chance.
To be counted against a record it has to find the same one under work in each of ``record_tries`` lives in a row, since
a record that goes through is forgotten; steps take milliseconds and lives seconds, so a chance of one in a hundred each
time is one in ten thousand million for five. What is then parked is whole in ``rejects`` and can be sent again.

Records that were under work together (their rows were sealed or written together) come one by one in the next life,
with care: event by event, so that the one event is known. When the tries are used up it is parked, and its neighbours
go on. The counts belong to this worker's file: a record that moves to another worker begins there anew.
"""

from __future__ import annotations

import atexit
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from midstream.clickhouse.client import ClickHouseError
from midstream.logs import get_logger
from midstream.metrics import SUSPECT_RECORDS
from midstream.settings import Settings
from processors.attempts_file import (
    FILE_BYTES,
    NEW_FILE,
    POSITIONS,
    SUSPECTS,
    WHOLE,
    Identity,
    LaneArea,
    Phase,
    Suspect,
    digest_of,
    is_readable,
    read_suspect,
    write_suspect,
)
from processors.store.lease import LeaseLostError

log = get_logger(__name__)

DIED = "the worker died while working on it"

_SLOTS = 256
_KEPT_S = 3600
"""How long it is remembered that a record was parked: until its offset is committed for sure."""
_FORGOTTEN_S = 7 * 24 * 3600

T = TypeVar("T")
R = TypeVar("R")


class AttemptsError(Exception):
    """The file cannot be used; the message says why."""


class KafkaRecord(Protocol):
    """What is needed of a record."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its offset."""

    @property
    def value(self) -> bytes:
        """Its value."""


Rec = TypeVar("Rec", bound=KafkaRecord)


def is_of_the_environment(error: BaseException) -> bool:
    """Tell whether an error says nothing about the record that was under work."""
    if isinstance(error, ClickHouseError):
        return not error.by_data
    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        return False
    return isinstance(error, KafkaError | TimeoutError | LeaseLostError) or not isinstance(error, Exception)


class Trial:
    """A record that is worked on with care: alone, event by event."""

    def __init__(self, lane: Lane, suspect: Suspect | None) -> None:
        self._lane = lane
        self._suspect = suspect

    @property
    def is_whole(self) -> bool:
        """Whether no single event is at fault, or too many: all of the record is to be parked."""
        return self._suspect is not None and WHOLE in self._suspect.parked

    @property
    def has_parked(self) -> bool:
        """Whether something of it is to be parked."""
        return self._suspect is not None and bool(self._suspect.parked)

    @property
    def is_unreadable(self) -> bool:
        """Whether it failed before there were single events, or where they were to be parked."""
        suspect = self._suspect
        return suspect is not None and (suspect.phase is Phase.READ or suspect.parked.count(WHOLE) > 1)

    @property
    def message(self) -> str:
        """What happened at the last try."""
        return self._suspect.message if self._suspect else ""

    def at(self, index: int) -> None:
        """Note that the event with this index is under work; -1: all of them again."""
        self._lane.at(index)

    def times_parked(self, index: int) -> int:
        """How many times the tries of this event were used up; from the second time on, nothing of it may be
        touched."""
        return self._suspect.parked.count(index) if self._suspect else 0


class Lane:
    """The records of one topic, worked on one after the other. Threads that help may mark in it too."""

    def __init__(self, attempts: Attempts, topic: str, area: LaneArea) -> None:
        self._attempts = attempts
        self._topic = topic
        self._area = area
        self._lock = threading.Lock()
        self._active = 0
        self._begun: list[Identity] = []
        self._index = WHOLE
        self._phase = Phase.READ
        self._has_turn = False

    def parts(self, records: Sequence[Rec]) -> Iterator[Sequence[Rec]]:
        """Split records into those that are worked on together and those that are worked on with care, alone."""
        if not self._attempts.has_entries:
            yield records
            return
        start = 0
        for place, record in enumerate(records):
            if self._is_apart(record):
                if place > start:
                    yield records[start:place]
                yield records[place : place + 1]
                start = place + 1
        if start < len(records):
            yield records[start:]

    def _is_apart(self, record: KafkaRecord) -> bool:
        slot = record.partition % POSITIONS
        until = self._area.apart[slot]
        if until and record.offset >= until:
            self._area.apart[slot] = until = 0
            self._attempts.look()
        return until > 0 or self._attempts.find(self._identity(record)) is not None

    def _identity(self, record: KafkaRecord) -> Identity:
        return Identity(self._topic, record.partition, record.offset, digest_of(record.value))

    def begin(self, record: KafkaRecord) -> Trial | None:
        """Note that a record is under work; return its trial if it is worked on with care.

        While there is a suspect, only one lane works at a time: what dies is then the one that is at fault.
        """
        identity = self._identity(record)
        trial = None
        if self._attempts.is_careful and not self._has_turn:
            self._attempts.turn.acquire()
            self._has_turn = True
        if self._attempts.has_entries and self._is_apart(record):
            trial = Trial(self, self._attempts.find(identity))
        self._begun.append(identity)
        self._index, self._phase = WHOLE, Phase.READ
        self._area.positions[record.partition % POSITIONS] = record.offset + 1
        if not self._attempts.closed:
            self._area.write(identity, WHOLE, Phase.READ)
        self._active = 1
        self._attempts.enter(self)
        return trial

    def at(self, index: int) -> None:
        """Note which event of the record is under work; -1: all of them."""
        self._index, self._phase = index, Phase.EVENT
        self._area.write_place(index, Phase.EVENT)

    def joint(self) -> None:
        """Note that what follows concerns all records begun since the last :meth:`passed`."""
        if len(self._begun) > 1:
            self._index, self._phase = WHOLE, Phase.JOINT
            self._area.write_place(WHOLE, Phase.JOINT)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Waiting for ClickHouse or Kafka: what ends the process now is no fault of the record."""
        self._count(-1)
        try:
            yield
        finally:
            self._count(1)

    def helping(self, work: Callable[[T], R]) -> Callable[[T], R]:
        """Return ``work`` for another thread: while it runs there, the record is under work."""

        def run(argument: T) -> R:
            self._attempts.enter(self)
            self._count(1)
            try:
                return work(argument)
            finally:
                self._count(-1)
                self._attempts.enter(None)

        return run

    def _count(self, change: int) -> None:
        with self._lock:
            self._active += change
            self._area.switch(self._active > 0 and not self._attempts.closed)

    def passed(self) -> None:
        """All that was begun is durable: nothing is under work, and what was suspected is cleared."""
        self._active = 0
        self._area.switch(False)
        if self._attempts.has_entries:
            for identity in self._begun:
                self._attempts.acquit(identity)
        self._begun.clear()
        self._give_turn()
        self._attempts.enter(None)

    def failed(self, error: BaseException) -> None:
        """Count an error against the record under work, durably, unless it is none of its fault. The process must end
        then."""
        if self._begun and not is_of_the_environment(error):
            self.set_apart()
            if self._phase is not Phase.JOINT:
                text = f"{type(error).__name__}: {error}"
                self._attempts.count(self._begun[-1], self._index, self._phase, text)
            self._attempts.sync()
        self._attempts.close()
        self._give_turn()

    def set_apart(self) -> None:
        """Let the records begun so far come alone from now on."""
        self._area.set_apart()
        self._attempts.look()

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._attempts.turn.release()


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
        self._limit = limit
        self._lock = threading.Lock()
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
                memory = _lock_and_map(folder / name)
                if memory is not None:
                    attempts = cls(memory, settings.record_tries)
                    atexit.register(attempts.close)
                    return attempts
        except OSError as error:
            raise AttemptsError(f"{folder} cannot be used: {error}") from error
        raise AttemptsError(f"{folder}: {_SLOTS} workers of {group} run here")

    def lane(self, topic: str) -> Lane:
        """Return the lane of a topic; the same each time."""
        if topic not in self._lanes:
            area = next(area for area in self._areas if area.claim(topic))
            self._lanes[topic] = Lane(self, topic, area)
            self.look()
        return self._lanes[topic]

    def close(self) -> None:
        """Take all marks off: what ends the process from here on is no fault of a record."""
        self.closed = True
        for area in self._areas:
            area.switch(False)

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
            identity, index, phase = area.read()
            area.set_apart()
            if phase is not Phase.JOINT:
                self.count(identity, index, phase, DIED)
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
        suspected = sum(not suspect.passed for suspect in self._suspects.values())
        SUSPECT_RECORDS.set(suspected)
        self.is_careful = suspected > 0 or any(area.has_apart for area in self._areas)
        self.has_entries = self.is_careful or bool(self._suspects)

    def find(self, identity: Identity) -> Suspect | None:
        """Return what is known against a record."""
        return self._suspects.get(identity)

    def count(self, identity: Identity, index: int, phase: Phase, message: str) -> None:
        """Count a try. When it was the last one, the event at fault (or the record, if that is not known) is to be
        parked. Durable after :meth:`sync`."""
        with self._lock:
            suspect = self._suspects.get(identity) or self._take_place(identity)
            suspect.tries += 1
            suspect.index, suspect.phase, suspect.message = index, phase, message
            suspect.passed, suspect.at_s = False, int(time.time())
            if suspect.tries >= self._limit:
                suspect.tries = 0
                suspect.park(index)
            write_suspect(self._memory, suspect.place, suspect)
            log.error(
                "record.failed",
                topic=identity.topic,
                partition=identity.partition,
                offset=identity.offset,
                event_index=index,
                tries=suspect.tries or self._limit,
                of=self._limit,
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


def _lock_and_map(path: Path) -> mmap.mmap | None:
    """Return a worker's file, mapped, or None if another has it. The lock lasts as long as the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not is_readable(os.pread(descriptor, FILE_BYTES, 0)):
        # Written whole: a store into a mapped hole kills the process when the disk is full.
        if os.fstat(descriptor).st_size:
            log.warning("attempts.made_anew", file=str(path))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, NEW_FILE + bytes(FILE_BYTES - len(NEW_FILE)), 0)
        os.fsync(descriptor)
    _open_files.append(descriptor)
    return mmap.mmap(descriptor, FILE_BYTES)


_open_files: list[int] = []
"""Kept open: a lock ends with its file."""
