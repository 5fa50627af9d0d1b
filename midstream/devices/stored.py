"""What ClickHouse knows of devices: their state, its history and their latest status. Blocks.

The answers are those of :mod:`midstream.devices.state` for the reports that are stored; the views ``device_state`` and
``device_history`` give the same. A state is read from the latest row of each key. For a device that has had reports
too far ahead of their receipt, it is looked up whether those rows count; if one does not, all its rows are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from midstream.devices.report import STATUS_KEY, Value
from midstream.devices.state import Entry, Place

Rows = Callable[[str, dict[str, Any] | None], Sequence[tuple[Any, ...]]]
"""Runs a query; raises ClickHouseError."""

MAX_POINTS = 1_000
"""Points of a history that are given as they are; of more, about as many."""
_INTERVALS = MAX_POINTS // 3
_DEVICES_A_QUERY = 1_000

_VALUE, _OVERRIDE, _, _AHEAD = range(4)  # the column ``kind``
_NULL = "null"

# Of a latest row: place, receipt and value.
_LATEST = """toUnixTimestamp64Micro(latest.1), lower(hex(latest.2)), latest.3, -latest.4, latest.5"""

_CURRENT = f"""SELECT toInt8(kind), key, {_LATEST}
FROM (SELECT kind, key, max(latest) AS latest FROM device_latest_rows
WHERE device_id = {{device:String}} AND kind != 'message' GROUP BY kind, key)"""  # noqa: S608 - constants

_CURRENT_OF = f"""SELECT device_id, toInt8(kind), key, {_LATEST}
FROM (SELECT device_id, kind, key, max(latest) AS latest FROM device_latest_rows
WHERE device_id IN {{devices:Array(String)}} AND kind != 'message' GROUP BY device_id, kind, key)
ORDER BY device_id"""  # noqa: S608 - constants

_STORED_SINCE = """SELECT device_id, toUnixTimestamp64Milli(max(stored_at)) FROM device_rows
WHERE stored_at > fromUnixTimestamp64Milli({since:Int64}, 'UTC') GROUP BY device_id"""

_STATUSES = f"""SELECT toInt8(kind), device_id, {_LATEST}
FROM (SELECT kind, device_id, max(latest) AS latest FROM device_latest_rows
WHERE device_id IN {{devices:Array(String)}} AND (kind = 'ahead' OR kind = 'value' AND key = {{key:String}})
GROUP BY kind, device_id)"""  # noqa: S608 - constants

# As FixedString: a String that ends in a zero byte is not found among them.
_COUNTING = """SELECT lower(hex(digest)), toUnixTimestamp64Micro(min(first_at)) FROM device_ahead_rows
WHERE device_id = {device:String}
AND digest IN (SELECT toFixedString(unhex(arrayJoin({digests:Array(String)})), 32)) GROUP BY digest"""

_AMONG_ALL = f"""SELECT toInt8(kind), key, {_LATEST}
FROM (SELECT kind, key, max((at, digest, receipt_id, -toUnixTimestamp64Micro(received_at), value)) AS latest
FROM device_rows GLOBAL LEFT JOIN (SELECT digest, toNullable(min(first_at)) AS counting_at FROM device_ahead_rows
WHERE device_id = {{device:String}} GROUP BY digest) AS ahead USING (digest)
WHERE device_id = {{device:String}} AND kind IN ('value', 'override') AND at <= ifNull(counting_at, at)
AND toUnixTimestamp64Micro(at) <= {{until:Int64}}
GROUP BY kind, key)"""  # noqa: S608 - constants

_POINTS = """SELECT toUnixTimestamp64Micro(at) AS at_us, value FROM device_history
WHERE device_id = {device:String} AND key = {key:String}
AND at >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND at <= fromUnixTimestamp64Micro({to:Int64}, 'UTC')"""
_RAW = f"{_POINTS} ORDER BY at, report_id LIMIT {MAX_POINTS + 1}"
# Of each interval of time the least and the greatest number, so that no peak is lost, and the last value.
_SAMPLED = f"""WITH points AS (SELECT toUnixTimestamp64Micro(at) AS at_us, report_id, value,
toFloat64OrNull(value) AS number FROM device_history
WHERE device_id = {{device:String}} AND key = {{key:String}}
AND at >= fromUnixTimestamp64Micro({{from:Int64}}, 'UTC') AND at <= fromUnixTimestamp64Micro({{to:Int64}}, 'UTC')),
(SELECT (min(at_us), max(at_us)) FROM points) AS ends
SELECT DISTINCT point.1, point.2, point.3 FROM (
SELECT arrayJoin(arrayFilter(one -> one.3 != '', [
argMinIf((at_us, report_id, value), (number, at_us, report_id), isNotNull(number)),
argMaxIf((at_us, report_id, value), (number, at_us, report_id), isNotNull(number)),
argMax((at_us, report_id, value), (at_us, report_id))])) AS point
FROM points GROUP BY intDiv((at_us - ends.1) * {_INTERVALS}, ends.2 - ends.1 + 1))
ORDER BY point.1, point.2"""  # noqa: S608 - constants

_EARLIEST_US, _LATEST_US = -2_208_988_800_000_000, 10_413_791_999_999_999  # what DateTime64 holds: 1900 to 2299


@dataclass(frozen=True, slots=True)
class Point:
    """What a device said of a key at a moment."""

    at_us: int
    value: Value | None
    """None: it removed the key."""


class _Latest(NamedTuple):
    kind: int
    key: str
    at_us: int
    digest: str
    receipt_id: str
    received_at_us: int
    text: str

    @property
    def place(self) -> tuple[int, str, str]:
        return self.at_us, self.digest, self.receipt_id

    def entry(self) -> Entry:
        place = Place(self.at_us, bytes.fromhex(self.digest))
        return Entry(msgspec.json.decode(self.text), place, self.received_at_us)


def read_state(rows: Rows, device_id: str, at_us: int | None = None) -> Mapping[str, Entry]:
    """Return a device's state by key, in the keys' order; empty for a device that nothing is known of.

    Args:
        rows: runs a query.
        device_id: the device.
        at_us: reports whose effective time is later do not count; None: all do.

    Raises:
        ClickHouseError: it cannot be read now.
    """
    if at_us is not None:
        return _state(_among_all(rows, device_id, at_us))
    return _current(rows, device_id, [_Latest(*row) for row in rows(_CURRENT, {"device": device_id})])


def read_states(rows: Rows, device_ids: Iterable[str]) -> Mapping[str, Mapping[str, Entry]]:
    """Return the state of each of these devices, as :func:`read_state` does; those without one are left out.

    Raises:
        ClickHouseError: it cannot be read now.
    """
    wanted = list(dict.fromkeys(device_ids))
    states: dict[str, Mapping[str, Entry]] = {}
    for start in range(0, len(wanted), _DEVICES_A_QUERY):
        found = rows(_CURRENT_OF, {"devices": wanted[start : start + _DEVICES_A_QUERY]})
        for device_id, of_device in groupby(found, key=itemgetter(0)):
            state = _current(rows, device_id, [_Latest(*row[1:]) for row in of_device])
            if state:
                states[device_id] = state
    return states


def read_stored_since(rows: Rows, since_ms: int) -> Mapping[str, int]:
    """Return the devices of which something was stored after a moment, with the latest time of that; both are
    milliseconds since 1970 by the clocks of the workers.

    What is being inserted now may become visible with an earlier time than what is found: ask for some seconds again.

    Raises:
        ClickHouseError: it cannot be read now.
    """
    found: Any = rows(_STORED_SINCE, {"since": since_ms})
    return dict(found)


def _current(rows: Rows, device_id: str, latest: Sequence[_Latest]) -> Mapping[str, Entry]:
    found = [one for one in latest if one.kind != _AHEAD]
    if len(found) < len(latest) and not _all_count(rows, device_id, found):
        found = _among_all(rows, device_id, _LATEST_US)
    return _state(found)


def read_statuses(rows: Rows, device_ids: Iterable[str]) -> Mapping[str, Entry]:
    """Return the status that each device reported last; those that have reported nothing are left out.

    Raises:
        ClickHouseError: it cannot be read now.
    """
    wanted = list(dict.fromkeys(device_ids))
    statuses: dict[str, Entry] = {}
    for start in range(0, len(wanted), _DEVICES_A_QUERY):
        part = wanted[start : start + _DEVICES_A_QUERY]
        latest = [_Latest(*row) for row in rows(_STATUSES, {"devices": part, "key": STATUS_KEY})]
        ahead = {one.key for one in latest if one.kind == _AHEAD}  # here the device stands for the key
        for one in latest:
            if one.kind != _VALUE:
                continue
            if one.key in ahead and not _all_count(rows, one.key, [one]):
                statuses[one.key] = read_state(rows, one.key)[STATUS_KEY]
            else:
                statuses[one.key] = one.entry()
    return statuses


def read_history(
    rows: Rows, device_id: str, key: str, from_us: int | None = None, to_us: int | None = None
) -> list[Point]:
    """Return what a device said of a key, oldest first, between two moments (both included).

    Up to :data:`MAX_POINTS` are given as they are. Of more: of each of some equal intervals of time the least and the
    greatest number and the last value.

    Raises:
        ClickHouseError: it cannot be read now.
    """
    parameters = {
        "device": device_id,
        "key": key,
        "from": _EARLIEST_US if from_us is None else min(max(from_us, _EARLIEST_US), _LATEST_US),
        "to": _LATEST_US if to_us is None else min(max(to_us, _EARLIEST_US), _LATEST_US),
    }
    found = [(at_us, text) for at_us, text in rows(_RAW, parameters)]
    if len(found) > MAX_POINTS:
        found = [(at_us, text) for at_us, _, text in rows(_SAMPLED, parameters)]
    return [Point(at_us, msgspec.json.decode(text)) for at_us, text in found]


def _among_all(rows: Rows, device_id: str, until_us: int) -> list[_Latest]:
    """Return the latest row of each key among all that count."""
    until_us = min(max(until_us, _EARLIEST_US), _LATEST_US)
    return [_Latest(*row) for row in rows(_AMONG_ALL, {"device": device_id, "until": until_us})]


def _all_count(rows: Rows, device_id: str, latest: Sequence[_Latest]) -> bool:
    """Tell whether of each of these rows' reports it is a copy that counts: none came earlier with less time."""
    digests = list(dict.fromkeys(one.digest for one in latest))
    counting_at: dict[str, int] = {}
    for start in range(0, len(digests), _DEVICES_A_QUERY):
        part = digests[start : start + _DEVICES_A_QUERY]
        found: Any = rows(_COUNTING, {"device": device_id, "digests": part})
        counting_at |= dict(found)
    return all(one.at_us <= counting_at.get(one.digest, one.at_us) for one in latest)


def _state(latest: Sequence[_Latest]) -> Mapping[str, Entry]:
    replaced = max((one.place for one in latest if one.kind == _OVERRIDE), default=(0, "", ""))
    counting = [one for one in latest if one.kind == _VALUE and one.text != _NULL and one.place >= replaced]
    return {one.key: one.entry() for one in sorted(counting, key=lambda one: one.key)}
