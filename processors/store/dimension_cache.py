"""Entry rows of one worker: a bounded LRU over ClickHouse, kept fresh by the ``dimensions`` topic.

An entry only ever moves to a higher version. What is missing is remembered for a short time only.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from midstream.clickhouse.client import ClickHouse
from midstream.metrics import DIMENSION_CACHE_ENTRIES, DIMENSION_LOOKUPS

Key = tuple[str, str]

_LOOKUP_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as events carry it. ``attributes`` is "" when the object is missing or deleted."""

    attributes: str
    version: int
    location: str = ""
    """The derived location as JSON text, "" when the attributes have none."""
    expires_at: float = float("inf")
    """Monotonic seconds until which this is believed."""


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

    def get(self, type_: str, ids: Sequence[str]) -> list[Entry]:
        """Return the objects with these ids, in order; those not held are looked up in ClickHouse together.

        Raises:
            ClickHouseError: the look-up failed.
        """
        now = self._clock()
        found: dict[str, Entry] = {}
        missing: list[str] = []
        with self._lock:
            for id_ in ids:
                entry = self._entries.get((type_, id_))
                if entry is None or entry.expires_at <= now:
                    missing.append(id_)
                    self._asked[(type_, id_)] = None
                else:
                    self._entries.move_to_end((type_, id_))
                    found[id_] = entry
        DIMENSION_LOOKUPS.labels(type_, "hit").inc(len(found))
        if missing:
            found.update(self._look_up(type_, missing))
        return [found[id_] for id_ in ids]

    def _look_up(self, type_: str, ids: list[str]) -> dict[str, Entry]:
        try:
            stored: dict[str, Entry] = {}
            for start in range(0, len(ids), _LOOKUP_CHUNK):
                rows = self._clickhouse.rows(
                    "SELECT id, attributes, version, deleted FROM dimensions "
                    "WHERE type = {type:String} AND id IN {ids:Array(String)}",
                    {"type": type_, "ids": ids[start : start + _LOOKUP_CHUNK]},
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
        absent = Entry("", -1, expires_at=self._clock() + self._negative_s)
        found: dict[str, Entry] = {}
        with self._lock:
            for id_ in ids:
                entry, came = stored.get(id_, absent), self._asked.pop((type_, id_), None)
                if came is not None and came.version > entry.version:
                    entry = came
                found[id_] = entry
                self._put((type_, id_), entry)
        return found

    def offer(self, type_: str, id_: str, attributes: str, version: int, deleted: bool) -> None:
        """Take a row from the ``dimensions`` topic. An object that nobody asked for is not kept: a bulk load must not
        push out what is used."""
        key = (type_, id_)
        with self._lock:
            held = self._entries.get(key)
            if held is not None and version > held.version:
                self._put(key, _entry(type_, attributes, version, deleted))
            if key in self._asked:
                came = self._asked[key]
                if came is None or version > came.version:
                    self._asked[key] = _entry(type_, attributes, version, deleted)

    def _put(self, key: Key, entry: Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        DIMENSION_CACHE_ENTRIES.set(len(self._entries))


def _entry(type_: str, attributes: str, version: int, deleted: bool) -> Entry:
    if deleted:
        return Entry("", version)
    return Entry(attributes, version, derive_location(type_, attributes))
