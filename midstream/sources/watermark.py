"""How far a source has been read: the text that one read hands to the next, as ``since``. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from midstream.sources.rows import TimeUnit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = re.compile(r"(version|ms):(\d{1,19})")


def version_after(since: str | None, timed: bool) -> int | None:
    """Return the version that a watermark holds; None when it holds none of this kind, so that all has to be read.

    Args:
        since: the watermark, such as ``version:17`` or ``ms:1700000000000``.
        timed: whether the source's versions are times of change.
    """
    match = _TEXT.fullmatch(since or "")
    return int(match.group(2)) if match and (match.group(1) == "ms") is timed else None


def next_watermark(after: int | None, highest: int | None, timed: bool, began_ms: int) -> str | None:
    """Return the watermark after a read.

    Args:
        after: the version after which was read; None for all.
        highest: the highest version that came, if any did.
        timed: whether these are times of change.
        began_ms: when the read began. A time of change in the future is no watermark: all that changes before it would
            be passed over.
    """
    if timed and highest is not None:
        highest = min(highest, began_ms)
    found = max((one for one in (after, highest) if one is not None), default=None)
    return None if found is None else f"{'ms' if timed else 'version'}:{found}"


def as_time(version_ms: int) -> datetime:
    """Return epoch milliseconds as a time in UTC; the last one that there is for those beyond it."""
    try:
        return _EPOCH + timedelta(milliseconds=version_ms)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def since_text(version: int, timed: bool, unit: TimeUnit) -> str:
    """Return a version as an HTTP source takes it: a number, or ISO 8601 in UTC."""
    if not timed or unit == "epoch_ms":
        return str(version)
    if unit == "epoch_s":
        return str(version // 1000)
    return as_time(version).isoformat(timespec="milliseconds").replace("+00:00", "Z")
