"""The records of one topic as a worker takes them up: marked while they are under work, alone when one is suspected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from midstream.clickhouse.client import ClickHouseError
from midstream.records import OtherVersionError
from processors.attempts.file import POSITIONS, WHOLE, Identity, LaneArea, Phase, Suspect, digest_of
from processors.lease import LeaseLostError

if TYPE_CHECKING:
    from processors.attempts.table import Attempts

T = TypeVar("T")
R = TypeVar("R")


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
    return isinstance(error, KafkaError | OtherVersionError | TimeoutError | LeaseLostError) or not isinstance(
        error, Exception
    )


class Trial:
    """A record that is worked on with care: alone, a few events after the other."""

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

    def at(self, index: int, size: int = 1) -> None:
        """Note that the event with this index is under work, or so many from there on; -1: all of them again."""
        self._lane.at(index, size)

    def is_suspected(self, start: int, end: int) -> bool:
        """Whether the events from ``start`` up to ``end`` come one by one: the last try ended at one of them, or the
        tries are used up and nobody knows the one at fault. (It may be none: some die only together.)"""
        suspect = self._suspect
        if suspect is None:
            return False
        is_there = suspect.index >= 0 and start < suspect.index + suspect.size and suspect.index < end
        return is_there or suspect.tries >= self._lane.limit

    def times_parked(self, index: int) -> int:
        """How many times the tries of this event were used up; from the second time on, nothing of it may be
        touched."""
        return self._suspect.parked.count(index) if self._suspect else 0


class Lane:
    """The records of one topic, worked on one after the other. Threads that help may mark in it too."""

    def __init__(self, attempts: Attempts, topic: str, area: LaneArea, *, mixes: bool) -> None:
        """``mixes``: work on one record works on what came of those before it too, until :meth:`passed`."""
        self.limit = attempts.limit
        self._attempts = attempts
        self._topic = topic
        self._area = area
        self._mixes = mixes
        self._is_alone = not mixes
        self._lock = threading.Lock()
        self._active = 0
        self._begun: list[Identity] = []
        self._index, self._size = WHOLE, 1
        self._phase = Phase.READ
        self._has_turn = False

    def parts(self, records: Sequence[Rec]) -> Iterator[Sequence[Rec]]:
        """Split records into those that are worked on together; suspects come alone."""
        for part in [records] if not self._attempts.has_entries else self._split(records):
            self._is_alone = len(part) == 1
            yield part

    def _split(self, records: Sequence[Rec]) -> Iterator[Sequence[Rec]]:
        self._attempts.look()
        part: list[Rec] = []
        limit = len(records)
        for record in records:
            is_suspect = self._attempts.find(self._identity(record)) is not None
            wanted = 1 if is_suspect else self._area.group if self._is_apart(record) else len(records)
            # Partitions come mixed: a part is as large as the smallest group allows that has a record in it.
            if part and (1 in (limit, wanted) or len(part) >= min(limit, wanted)):
                yield part
                part, limit = [], len(records)
            limit = min(limit, wanted)
            part.append(record)
        self._attempts.look()
        if part:
            yield part

    def _is_apart(self, record: KafkaRecord) -> bool:
        return self._area.is_apart(record.partition, record.offset)

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
        if self._attempts.has_entries:
            suspect = self._attempts.find(identity)
            if suspect is not None or (self._mixes and self._is_alone and self._is_apart(record)):
                trial = Trial(self, suspect)
        self._begun.append(identity)
        self._index, self._size = WHOLE, 1
        self._phase = Phase.READ
        if self._mixes and not self._is_alone:
            self._phase, self._size = Phase.JOINT, len(self._begun)
        self._area.positions[record.partition % POSITIONS] = record.offset + 1
        if not self._attempts.closed:
            self._area.write(identity, WHOLE, self._phase, self._size)
        self._active = 1
        self._attempts.enter(self)
        return trial

    def at(self, index: int, size: int = 1) -> None:
        """Note which event of the record is under work, or so many from there on; -1: all of them."""
        self._index, self._phase, self._size = index, Phase.EVENT, size
        self._area.write_place(index, Phase.EVENT, size)

    def joint(self) -> None:
        """Note that what follows concerns all records begun since the last :meth:`passed`."""
        if len(self._begun) > 1:
            self._index, self._phase, self._size = WHOLE, Phase.JOINT, len(self._begun)
            self._area.write_place(WHOLE, Phase.JOINT, self._size)

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
            text = f"{type(error).__name__}: {error}"
            if self._phase is Phase.JOINT:
                self._attempts.set_apart(self._area, self._size)
            else:
                self._attempts.count(self._begun[-1], self._index, self._size, self._phase, text)
            self._attempts.sync()
        self._attempts.close()
        self._give_turn()

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._attempts.turn.release()
