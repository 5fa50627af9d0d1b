"""The form of a worker's file of attempts: marks of what is under work, and a table of suspected records.

Fixed places of fixed size, little endian. A first byte of each place says whether it holds anything and is written
last, so that a process that dies in the middle of writing leaves nothing half there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import xxhash

from midstream.logs import get_logger

log = get_logger(__name__)

WHOLE = -1
"""Index of an event that stands for all of the record."""

GROUPS = 8
"""Into so many groups come records of which one has to be found: few enough that what many of them make together is
not much more than before."""
LANES = 4
POSITIONS = 1024
"""Partitions whose positions are kept; beyond it some share a place, and more records than needed come alone."""
SUSPECTS = 64

NEW_FILE = b"MSATTEM2"
_TOPIC_BYTES = 64
_MESSAGE_BYTES = 400
_HEAD_BYTES = 64

_IDENTITY = struct.Struct(f"<{_TOPIC_BYTES}sIQ16s")
_PLACE = struct.Struct("<iBI")
_IDENTITY_AT = 8
_PLACE_AT = _IDENTITY_AT + _IDENTITY.size
_OWNER_AT = 128
_APART = struct.Struct("<IIQ")
_APART_AT = _OWNER_AT + _TOPIC_BYTES
_MARK_BYTES = 256
_ARRAY_BYTES = POSITIONS * 8
_LANE_BYTES = _MARK_BYTES + 2 * _ARRAY_BYTES

_MAX_PARKED = 8
_SUSPECT = struct.Struct(f"<B{_IDENTITY.size}sIiIBBQB{_MAX_PARKED}i{_MESSAGE_BYTES}s")
_SUSPECT_BYTES = 640
_SUSPECTS_AT = _HEAD_BYTES + LANES * _LANE_BYTES
FILE_BYTES = _SUSPECTS_AT + SUSPECTS * _SUSPECT_BYTES


_locked: list[int] = []
"""Kept open: a lock ends with its file."""


class Phase(IntEnum):
    """How far the work on a record was."""

    READ = 1
    """Before there are single events."""
    EVENT = 2
    JOINT = 3
    """Together with other records."""


class Identity(NamedTuple):
    """What a record is known by."""

    topic: str
    partition: int
    offset: int
    digest: bytes
    """xxh3_128 of its value."""


@dataclass(slots=True)
class Suspect:
    """A record that was under work when something went wrong."""

    identity: Identity
    place: int
    tries: int = 0
    """Since an event of it was last parked."""
    index: int = WHOLE
    size: int = 1
    """Events from ``index`` on that were under work together."""
    phase: Phase = Phase.READ
    parked: list[int] = field(default_factory=list)
    """Indices of the events whose tries are used up."""
    passed: bool = False
    """Whether it went through since, with these parked."""
    at_s: int = 0
    message: str = ""

    def park(self, index: int) -> None:
        """Note that the tries of an event are used up; of too many events, that those of the whole record are."""
        if WHOLE in self.parked:
            self.parked = [WHOLE, WHOLE]
        else:
            self.parked.append(index if len(self.parked) < _MAX_PARKED - 1 else WHOLE)


def digest_of(value: bytes) -> bytes:
    """Return the part of a record's identity that comes from its value."""
    digest: bytes = xxhash.xxh3_128_digest(value)
    return digest


def is_readable(content: bytes) -> bool:
    """Tell whether this is a file of this form."""
    return len(content) == FILE_BYTES and content.startswith(NEW_FILE)


def _pack_identity(identity: Identity) -> bytes:
    topic = identity.topic.encode()[:_TOPIC_BYTES]
    return _IDENTITY.pack(topic, identity.partition, identity.offset, identity.digest)


def _unpack_identity(packed: bytes) -> Identity:
    topic, partition, offset, digest = _IDENTITY.unpack(packed)
    return Identity(topic.rstrip(b"\0").decode("utf-8", "replace"), partition, offset, digest)


class LaneArea:
    """The place of one topic: the record under work, how far each partition was read, which records come apart."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start
        view = memoryview(memory)
        arrays = start + _MARK_BYTES
        self.positions = view[arrays : arrays + _ARRAY_BYTES].cast("Q")
        """By partition: the offset after the last record that was begun."""
        self.apart = view[arrays + _ARRAY_BYTES : arrays + 2 * _ARRAY_BYTES].cast("Q")
        """By partition: the last records below this offset come in smaller groups, or alone; see :meth:`is_apart`."""

    @classmethod
    def of(cls, memory: mmap.mmap) -> list[LaneArea]:
        """Return all areas of a file."""
        return [cls(memory, _HEAD_BYTES + lane * _LANE_BYTES) for lane in range(LANES)]

    def claim(self, topic: str) -> bool:
        """Make this the area of a topic, unless it is another's."""
        owner = slice(self._start + _OWNER_AT, self._start + _OWNER_AT + _TOPIC_BYTES)
        name = topic.encode()[:_TOPIC_BYTES].ljust(_TOPIC_BYTES, b"\0")
        if not any(self._memory[owner]):
            self._memory[owner] = name
        return self._memory[owner] == name

    def write(self, identity: Identity, index: int, phase: Phase, size: int = 1) -> None:
        """Mark a record as under work; see :meth:`write_place`."""
        self._memory[self._start] = 0
        at = self._start + _IDENTITY_AT
        self._memory[at : at + _IDENTITY.size] = _pack_identity(identity)
        _PLACE.pack_into(self._memory, self._start + _PLACE_AT, index, phase, size)
        self._memory[self._start] = 1

    def write_place(self, index: int, phase: Phase, size: int = 1) -> None:
        """Mark which event of it is, or so many from there on; of ``Phase.JOINT``: so many records."""
        _PLACE.pack_into(self._memory, self._start + _PLACE_AT, index, phase, size)

    def switch(self, on: bool) -> None:
        """Take the mark off, or put it on again."""
        self._memory[self._start] = on

    @property
    def is_on(self) -> bool:
        """Whether a record is marked."""
        return self._memory[self._start] == 1

    @property
    def mark(self) -> bytes:
        """What is marked, for telling whether it is still the same."""
        return self._memory[self._start + _IDENTITY_AT : self._start + _PLACE_AT + _PLACE.size]

    def read(self) -> tuple[Identity, int, Phase, int]:
        """Return what is marked."""
        at = self._start + _IDENTITY_AT
        index, phase, size = _PLACE.unpack_from(self._memory, self._start + _PLACE_AT)
        known = phase if phase in tuple(Phase) else Phase.READ
        return _unpack_identity(self._memory[at : at + _IDENTITY.size]), index, Phase(known), size

    def set_apart(self, records: int, at_s: int) -> None:
        """Let the last records that were begun come in smaller groups, since something ended (epoch seconds ``at_s``)
        when so many of them were under work together; in the end alone."""
        _APART.pack_into(self._memory, self._start + _APART_AT, max(records // GROUPS, 1), records, at_s)
        self.apart[:] = self.positions

    def is_apart(self, partition: int, offset: int) -> bool:
        """Whether a record may be one of those; the first one after them says that they are through."""
        slot = partition % POSITIONS
        until = self.apart[slot]
        if offset >= until:
            self.apart[slot] = 0
            return False
        _, records, _ = self._apart()
        # Twice as many offsets: a transaction of a foreign producer takes one more, for its marker.
        return offset >= until - 2 * records

    def clear_apart(self) -> None:
        """Let all records come together again."""
        self.apart[:] = memoryview(bytes(_ARRAY_BYTES)).cast("Q")

    def _apart(self) -> tuple[int, int, int]:
        group, records, at_s = _APART.unpack_from(self._memory, self._start + _APART_AT)
        return group, records, at_s

    @property
    def group(self) -> int:
        """How many records that are set apart come together."""
        return max(self._apart()[0], 1)

    @property
    def apart_since_s(self) -> int:
        """When records were last set apart, epoch seconds."""
        return self._apart()[2]

    @property
    def has_apart(self) -> bool:
        """Whether there are records that come apart."""
        return any(self.apart)


def read_suspect(memory: mmap.mmap, place: int) -> Suspect | None:
    """Return the suspect at a place of the table, if there is one."""
    values = _SUSPECT.unpack_from(memory, _SUSPECTS_AT + place * _SUSPECT_BYTES)
    used, identity, tries, index, size, phase, passed, at_s, count, *rest = values
    if used != 1 or phase not in tuple(Phase) or count > _MAX_PARKED:
        return None
    *parked, message = rest
    return Suspect(
        _unpack_identity(identity),
        place,
        tries,
        index,
        size,
        Phase(phase),
        list(parked[:count]),
        bool(passed),
        at_s,
        message.rstrip(b"\0").decode("utf-8", "ignore"),
    )


def write_suspect(memory: mmap.mmap, place: int, suspect: Suspect | None) -> None:
    """Write a suspect to its place of the table; None empties it."""
    at = _SUSPECTS_AT + place * _SUSPECT_BYTES
    if suspect is None:
        memory[at] = 0
        return
    parked = suspect.parked[:_MAX_PARKED]
    packed = _SUSPECT.pack(
        1,
        _pack_identity(suspect.identity),
        suspect.tries,
        suspect.index,
        suspect.size,
        suspect.phase,
        suspect.passed,
        suspect.at_s,
        len(parked),
        *parked,
        *[0] * (_MAX_PARKED - len(parked)),
        suspect.message.encode("utf-8", "replace")[:_MESSAGE_BYTES],
    )
    memory[at] = 0
    memory[at + 1 : at + len(packed)] = packed[1:]
    memory[at] = 1


def lock_and_map(path: Path) -> mmap.mmap | None:
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
    _locked.append(descriptor)
    return mmap.mmap(descriptor, FILE_BYTES)
