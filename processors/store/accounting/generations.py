"""Whether a topic is still the one that was known, or was deleted and made anew under its name. Pure.

Kafka's client shows no topic ids, so this is told from offsets and append times: offsets only grow, and a record that
is still there was appended before its offset was known to be complete.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOCK_MARGIN_MS = 60_000
"""How far the clocks of the broker, which stamps records, and of the worker that published progress may lie apart."""


@dataclass(frozen=True, slots=True)
class First:
    """The first record that a partition still has."""

    offset: int
    at_ms: int
    """When Kafka appended it, epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was published of a partition. Times are epoch milliseconds."""

    complete: int
    since_ms: int
    """When the first record of its generation was appended; 0: not known, or there was none yet."""
    published_ms: int


def is_anew(published: Published, first: First | None, end: int) -> bool:
    """Tell whether a partition is of another generation than what was published of it.

    Args:
        published: the newest that was published.
        first: its first record; None: it has none.
        end: its end offset.
    """
    if end < published.complete:
        return True
    if first is None:
        return False
    if first.offset == 0 and published.since_ms:
        return first.at_ms != published.since_ms
    return first.offset < published.complete and first.at_ms > published.published_ms + CLOCK_MARGIN_MS
