"""Whether two texts of an event say the same."""

from __future__ import annotations

from midstream.events.text import TextError, parse_event

_MAX_DEPTH = 250


def same_content(first: str, second: str) -> bool:
    """Tell whether two JSON texts hold the same values; spacing and the order of keys do not count."""
    if first == second:
        return True
    try:
        return bool(parse_event(first.encode(), _MAX_DEPTH) == parse_event(second.encode(), _MAX_DEPTH))
    except TextError:
        return False
