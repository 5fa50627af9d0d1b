"""Times as clients write them, turned into epoch milliseconds."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

from midstream.jsonscan import scan_members

MAX_MS = 10_413_791_999_999
"""2299-12-31T23:59:59.999Z, the last millisecond of ClickHouse's DateTime64(3)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SENT_FLOAT = re.compile(rb'"ets"[ \t\n\r]*+:[ \t\n\r]*+(-?[0-9][0-9.eE+-]*+)')


def normalise_ets(value: int | float) -> int:
    """Return a client's time as epoch milliseconds.

    Ten digits before the point are seconds, 13 milliseconds, 16 microseconds, 19 nanoseconds; any other number of
    digits is read as milliseconds. What lies outside 1970-01-01..2299-12-31, which no column can hold, becomes the
    nearer end of that range.
    """
    if 1_000_000_000_000 <= value < 10_000_000_000_000:
        return int(value)
    if value >= 1e19 or not value > 0:
        return MAX_MS if value > 0 else 0
    digits = len(str(int(value)))
    if digits == 10:
        return round(value * 1_000)
    if digits == 16:
        return int(value) // 1_000
    if digits == 19:
        return int(value) // 1_000_000
    return min(int(value), MAX_MS)


def original_ets(value: int | float, raw: bytes) -> str:
    """Return the ``ets`` of the event ``raw``, parsed as ``value``, as it was sent: ``1.586431492513E12`` stays so.

    An integer has one way to be written, so that only what was parsed as a float is looked for in the text.
    """
    if value.__class__ is int:
        return str(value)
    found = _SENT_FLOAT.findall(raw)
    if len(found) == 1 and b"\\u00" not in raw:
        return str(found[0], "ascii")
    # Another object of the event has a key ets as well, or a key is written with escapes: only the event's own counts.
    for key, text in scan_members(raw, raw.index(b"{")):
        if key == b'"ets"' or (b"\\" in key and json.loads(key) == "ets"):
            return str(text, "ascii")
    return repr(value)


def parse_sent_at(ets: object, ts: object) -> int | None:
    """Return when a batch was sent, in epoch milliseconds: by its ``ets`` if that is a time, else by its ``ts``.

    Args:
        ets: a number, in any of the units of :func:`normalise_ets`.
        ts: ISO 8601; UTC where it names no zone.

    Returns:
        None if neither is a time between 1970 and 2299.
    """
    if isinstance(ets, int | float) and not isinstance(ets, bool):
        sent_at_ms = normalise_ets(ets)
        if 0 < sent_at_ms < MAX_MS:
            return sent_at_ms
    if isinstance(ts, str) and len(ts) <= 40:
        try:
            moment = datetime.fromisoformat(ts)
        except ValueError:
            return None
        sent_at_ms = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
        if 0 < sent_at_ms < MAX_MS:
            return sent_at_ms
    return None
