"""Entry rows of one worker: a bounded LRU over ClickHouse, kept fresh by the ``dimensions`` topic.

An entry only ever moves to a higher version. No row is believed for good: what the topic should have brought and did
not is healed by asking ClickHouse again, after minutes; after a moment, when the topic has brought a higher version
than ClickHouse has yet. What is missing is remembered for a short time only.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import cast

import msgspec
import orjson
from msgspec.structs import replace

from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import MAX_ID_BYTES
from midstream.metrics import DIMENSION_CACHE_ENTRIES, DIMENSION_LOOKUPS, DIMENSION_VERSIONS_KNOWN

Key = tuple[str, str]

_MAX_QUERY_IDS = 5_000
# The ids of a query are one field of a form, of which ClickHouse takes 128 KiB (http_max_field_value_size).
_MAX_QUERY_ID_BYTES = 64 * 1024
_ESCAPED = re.compile(r"[\\'`\t\n]")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One object as events carry it. ``attributes`` is "" when the object is missing or deleted."""

    attributes: str
    version: int
    """-1 when there is no row."""
    location: str = ""
    """The derived location as JSON text, "" when the attributes have none."""
    expires_at: float = float("inf")
    """Monotonic seconds until which this is believed."""


_ABSENT = Entry("", -1)


def derive_location(type_: str, attributes: str) -> str:
    """Return the location that an object's attributes declare, as JSON text, or "".

    A user's ``state`` and ``district`` are the profile's; a device has ``userDeclaredLocation`` and ``ipLocation``,
    in this order.
    """
    if type_ not in ("user", "device") or not attributes:
        return ""
    try:
        parsed = orjson.loads(attributes)
    except orjson.JSONDecodeError:  # a number that only other readers take: the attributes stay, without a location
        return ""
    candidates = (
        ((parsed, "user-profile"),)
        if type_ == "user"
        else ((parsed.get("userDeclaredLocation"), "user-declared"), (parsed.get("ipLocation"), "ip-resolved"))
    )
    for place, source in candidates:
        if not isinstance(place, dict):
            continue
        state, district = place.get("state"), place.get("district")
        if (isinstance(state, str) and state) or (isinstance(district, str) and district):
            return orjson.dumps({"state": state or "", "district": district or "", "from": source}).decode()
    return ""


class DimensionCache:
    """Thread-safe: a worker's thread looks up while its event loop offers what Kafka brings."""

    STORED_LIFE_S = 300.0
    """How long a row is believed."""
    BEHIND_LIFE_S = 1.0
    """The same of a row that ClickHouse answered while the topic had brought a higher version already."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        max_entries: int,
        negative_ms: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clickhouse = clickhouse
        self._max_entries = max_entries
        self._negative_s = negative_ms / 1000
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._asked: dict[Key, Entry | None] = {}  # looked up right now; with what Kafka brought meanwhile
        # Highest version that the topic has brought, by the key's hash: keys may be long, and two of one hash would
        # only be asked for more often. Of keys that are not held too: ClickHouse gets a row later than we do.
        self._known: OrderedDict[int, int] = OrderedDict()

    def get(self, type_: str, ids: Sequence[str]) -> list[Entry]:
        """Return the objects with these ids, in order; those not held are looked up in ClickHouse together.

        Raises:
            ClickHouseError: the look-up failed.
        """
        now = self._clock()
        keys = list(zip(repeat(type_), ids))
        missing: list[str] = []
        too_long: set[str] = set()
        with self._lock:
            found = list(map(self._entries.get, keys))
            stale = [place for place, entry in enumerate(found) if entry is None or entry.expires_at <= now]
            fresh = [key for key, entry in zip(keys, found, strict=True) if entry and entry.expires_at > now]
            for place in stale:
                if found[place] is None and _is_too_long(ids[place]):
                    too_long.add(ids[place])
                else:
                    missing.append(ids[place])
                    self._asked[keys[place]] = None
            deque(map(self._entries.move_to_end, fresh), maxlen=0)
        DIMENSION_LOOKUPS.labels(type_, "hit").inc(len(fresh))
        DIMENSION_LOOKUPS.labels(type_, "missing").inc(len(too_long))
        answered = self._look_up(type_, missing) if missing else {}
        for place in stale:
            found[place] = answered.get(ids[place], _ABSENT)  # no row has an id that is too long
        return cast("list[Entry]", found)

    def _look_up(self, type_: str, ids: list[str]) -> dict[str, Entry]:
        stored: dict[str, Entry] = {}
        try:
            for chunk in _chunks(ids):
                rows = self._clickhouse.rows(
                    "SELECT id, attributes, version, deleted FROM dimensions "
                    "WHERE type = {type:String} AND id IN {ids:Array(String)}",
                    {"type": type_, "ids": chunk},
                )
                for id_, attributes, version, deleted in rows:
                    stored[id_] = _entry(type_, attributes, version, deleted)
        except BaseException:
            with self._lock:
                for id_ in ids:
                    self._asked.pop((type_, id_), None)
            raise
        DIMENSION_LOOKUPS.labels(type_, "found").inc(len(stored))
        DIMENSION_LOOKUPS.labels(type_, "missing").inc(len(ids) - len(stored))
        now = self._clock()
        found: dict[str, Entry] = {}
        with self._lock:
            for id_ in ids:
                key = (type_, id_)
                came = self._asked.pop(key, None) or _ABSENT
                entry = max(stored.get(id_, _ABSENT), self._entries.get(key, _ABSENT), came, key=_version)
                if self._known.get(hash(key), -1) > entry.version:
                    life_s = self.BEHIND_LIFE_S
                else:
                    life_s = self._negative_s if entry.version < 0 else self.STORED_LIFE_S
                found[id_] = Entry(entry.attributes, entry.version, entry.location, now + life_s)
                self._put(key, found[id_])
            DIMENSION_CACHE_ENTRIES.set(len(self._entries))
        return found

    def offer(self, type_: str, id_: str, attributes: str, version: int, deleted: bool) -> None:
        """Take a row from the ``dimensions`` topic. An object that nobody asked for is not kept, but its version is: a
        bulk load must not push out what is used, and a look-up must know that ClickHouse is behind."""
        key = (type_, id_)
        with self._lock:
            held = self._entries.get(key)
            if held is not None and version > held.version:
                entry = _entry(type_, attributes, version, deleted)
                self._put(key, replace(entry, expires_at=self._clock() + self.STORED_LIFE_S))
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

    def _put(self, key: Key, entry: Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


def _entry(type_: str, attributes: str, version: int, deleted: bool) -> Entry:
    if deleted:
        return Entry("", version)
    return Entry(attributes, version, derive_location(type_, attributes))


def _version(entry: Entry) -> int:
    return entry.version


def _is_too_long(id_: str) -> bool:
    return len(id_) > MAX_ID_BYTES or (not id_.isascii() and len(id_.encode()) > MAX_ID_BYTES)


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """Cut ids into those of one query each."""
    chunk: list[str] = []
    size = 0
    for id_ in ids:
        # As an element of an array's text: quoted, with its escapes, and a comma and a blank after it.
        id_bytes = (len(id_) if id_.isascii() else len(id_.encode())) + len(_ESCAPED.findall(id_)) + 4
        if chunk and (len(chunk) == _MAX_QUERY_IDS or size + id_bytes > _MAX_QUERY_ID_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(id_)
        size += id_bytes
    if chunk:
        yield chunk
