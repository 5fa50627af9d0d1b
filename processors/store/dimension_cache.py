"""Dimension rows of one worker: a bounded LRU over ClickHouse, kept fresh by the ``dimensions`` topic.

An entry only ever moves to a higher version. No row is believed for good: what the topic should have brought and did
not is healed by asking ClickHouse again, after minutes; after a moment, when the topic has brought a higher version
than ClickHouse has yet, or while the topic is not followed. What is missing is remembered for a short time only.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from sys import getsizeof
from typing import cast

import msgspec
from msgspec.structs import replace

from midstream.clickhouse.client import ClickHouse
from midstream.dimension_location import derive_location
from midstream.dimensions import MAX_ID_BYTES
from midstream.metrics import (
    DIMENSION_CACHE_BYTES,
    DIMENSION_CACHE_ENTRIES,
    DIMENSION_LOOKUPS,
    DIMENSION_VERSIONS_KNOWN,
)
from processors.store.dimension_query import Key, find_dimensions

_ENTRY_BYTES = 300
"""What an entry takes beside its texts: itself, its key, its place. Measured with 200,000 of them."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One object as events carry it. ``attributes`` is "" when the object is missing or deleted."""

    attributes: str
    version: int
    """-1 when there is no row."""
    location: str = ""
    """The derived location as JSON text, "" when the attributes have none."""
    expires_at: float = float("inf")
    """Monotonic seconds until which this is believed."""
    is_stale: bool = False
    """Whether there is more than this: a higher version was known already, or the attributes were too large then."""


_ABSENT = Entry("", -1)


class DimensionCache:
    """Thread-safe: a worker's thread looks up while its event loop offers what Kafka brings."""

    STORED_LIFE_S = 300.0
    """How long a row is believed."""
    BEHIND_LIFE_S = 1.0
    """The same of a row that ClickHouse answered while the topic had brought a higher version already."""
    UNHEARD_LIFE_S = 2.0
    """The same of any row while the topic is not followed: nothing tells of changes."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        max_entries: int,
        max_bytes: int,
        negative_ms: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clickhouse = clickhouse
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._negative_s = negative_ms / 1000
        self._clock = clock
        self._lock = threading.Lock()
        # By type, since a look-up by a text alone takes half the time of one by a pair. Of the type that holds most,
        # the one goes that was not used for longest.
        self._held: defaultdict[str, OrderedDict[str, Entry]] = defaultdict(OrderedDict)
        self._entries = 0
        self._bytes: Counter[str] = Counter()
        self._asked: dict[Key, Entry | None] = {}  # looked up right now; with what Kafka brought meanwhile
        # Highest version that the topic has brought, by the key's hash: keys may be long, and two of one hash would
        # only be asked for more often. Of keys that are not held too: ClickHouse gets a row later than we do.
        self._known: OrderedDict[int, int] = OrderedDict()
        self._is_followed = False

    def follow(self, is_followed: bool) -> None:
        """Say whether the topic is being followed: every row that is there has been offered, and new ones will be."""
        with self._lock:
            if self._is_followed and not is_followed:
                self._held.clear()
                self._bytes.clear()
                self._entries = 0
                self._show()
            self._is_followed = is_followed

    def get(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[Entry]]:
        """Return, for each type with ids, the objects with these ids, in order; those not held are looked up in
        ClickHouse together.

        Raises:
            ClickHouseError: the look-up failed.
        """
        now = self._clock()
        found: list[list[Entry | None]] = []
        missing: dict[str, dict[str, None]] = {}
        incomplete: list[int] = []
        with self._lock:
            # While half of the room is free nothing has to go: which was used last need not be known.
            is_crowded = 2 * self._entries > self._max_entries or 2 * self._bytes.total() > self._max_bytes
            for at, (type_, ids) in enumerate(wanted):
                held = self._held[type_]
                entries = list(map(held.get, ids))
                found.append(entries)
                hits = ids
                unknown = [place for place, entry in enumerate(entries) if entry is None or entry.expires_at <= now]
                if unknown:
                    hits = [id_ for id_, entry in zip(ids, entries, strict=True) if entry and entry.expires_at > now]
                    self._ask(type_, ids, entries, unknown, missing.setdefault(type_, {}))
                    incomplete.append(at)
                if is_crowded:
                    deque(map(held.move_to_end, hits), maxlen=0)
                if hits:
                    DIMENSION_LOOKUPS.labels(type_, "hit").inc(len(hits))
        if any(missing.values()):
            answered = self._look_up({type_: list(ids) for type_, ids in missing.items()})
            for at in incomplete:
                type_, ids = wanted[at]
                found[at] = [
                    answered[type_, id_] if entry is None else entry for id_, entry in zip(ids, found[at], strict=True)
                ]
        return cast("list[list[Entry]]", found)

    def _ask(
        self, type_: str, ids: Sequence[str], entries: list[Entry | None], unknown: list[int], asked: dict[str, None]
    ) -> None:
        """Add to ``asked`` those of the ids at these places that are to be looked up; their entries are None from here
        on. No row has an id that is too long."""
        for place in unknown:
            if entries[place] is None and _is_too_long(ids[place]):
                entries[place] = _ABSENT
                DIMENSION_LOOKUPS.labels(type_, "missing").inc()
            else:
                entries[place] = None
                asked[ids[place]] = None
                self._asked[type_, ids[place]] = None

    def _look_up(self, missing: Mapping[str, Sequence[str]]) -> dict[Key, Entry]:
        stored: dict[Key, Entry] = {}
        try:
            for key, row in find_dimensions(self._clickhouse, missing).items():
                entry = _entry(key[0], row.attributes, row.version, row.deleted)
                stored[key] = replace(entry, is_stale=True) if row.is_left_out else entry
        except BaseException:
            with self._lock:
                for type_, ids in missing.items():
                    for id_ in ids:
                        self._asked.pop((type_, id_), None)
            raise
        now = self._clock()
        found: dict[Key, Entry] = {}
        with self._lock:
            for type_, ids in missing.items():
                rows = 0
                for id_ in ids:
                    key = type_, id_
                    rows += key in stored
                    found[key] = entry = self._newest(key, stored.get(key, _ABSENT), now)
                    self._put(key, entry)
                DIMENSION_LOOKUPS.labels(type_, "found").inc(rows)
                DIMENSION_LOOKUPS.labels(type_, "missing").inc(len(ids) - rows)
            self._show()
        return found

    def _newest(self, key: Key, stored: Entry, now: float) -> Entry:
        """Return the row that counts of an object that was looked up: a newer one came meanwhile, or is there."""
        came = self._asked.pop(key, None) or _ABSENT
        entry = max(stored, self._held[key[0]].get(key[1], _ABSENT), came, key=_version)
        is_stale = entry.is_stale or self._known.get(hash(key), -1) > entry.version
        if is_stale:
            life_s = self.BEHIND_LIFE_S
        else:
            life_s = self._life_s(self._negative_s if entry.version < 0 else self.STORED_LIFE_S)
        return Entry(entry.attributes, entry.version, entry.location, now + life_s, is_stale)

    def offer(self, type_: str, id_: str, attributes: str, version: int, deleted: bool) -> None:
        """Take a row from the ``dimensions`` topic. An object that nobody asked for is not kept, but its version is: a
        bulk load must not push out what is used, and a look-up must know that ClickHouse is behind."""
        key = (type_, id_)
        with self._lock:
            held = self._held[type_].get(id_)
            if held is not None and version > held.version:
                entry = _entry(type_, attributes, version, deleted)
                self._put(key, replace(entry, expires_at=self._clock() + self._life_s(self.STORED_LIFE_S)))
                self._show()
            if key in self._asked:
                came = self._asked[key]
                if came is None or version > came.version:
                    self._asked[key] = _entry(type_, attributes, version, deleted)
            hashed = hash(key)
            if version > self._known.get(hashed, -1):
                self._known[hashed] = version
                self._known.move_to_end(hashed)
                if len(self._known) > self._max_entries:
                    self._known.popitem(last=False)
                DIMENSION_VERSIONS_KNOWN.set(len(self._known))

    def _life_s(self, life_s: float) -> float:
        return life_s if self._is_followed else min(life_s, self.UNHEARD_LIFE_S)

    def _put(self, key: Key, entry: Entry) -> None:
        type_, id_ = key
        self._count(type_, id_, self._held[type_].pop(id_, None), -1)
        self._held[type_][id_] = entry
        self._count(type_, id_, entry, 1)
        while self._entries > self._max_entries:
            self._let_go(max(self._held, key=lambda one: len(self._held[one])))
        while self._bytes.total() > self._max_bytes:
            self._let_go(max(self._bytes, key=self._bytes.__getitem__))

    def _let_go(self, type_: str) -> None:
        self._count(type_, *self._held[type_].popitem(last=False), -1)

    def _count(self, type_: str, id_: str, entry: Entry | None, sign: int) -> None:
        if entry is not None:
            self._entries += sign
            self._bytes[type_] += sign * (
                _ENTRY_BYTES + getsizeof(id_) + getsizeof(entry.attributes) + getsizeof(entry.location)
            )

    def _show(self) -> None:
        DIMENSION_CACHE_ENTRIES.set(self._entries)
        DIMENSION_CACHE_BYTES.set(self._bytes.total())


def _entry(type_: str, attributes: str, version: int, deleted: bool) -> Entry:
    if deleted:
        return Entry("", version)
    return Entry(attributes, version, derive_location(type_, attributes))


def _version(entry: Entry) -> int:
    return entry.version


def _is_too_long(id_: str) -> bool:
    return len(id_) > MAX_ID_BYTES or (not id_.isascii() and len(id_.encode()) > MAX_ID_BYTES)
