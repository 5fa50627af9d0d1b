"""The part of a download that a request asks for: RFC 9110, sections 13 and 14. Pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


class UnsatisfiableError(ValueError):
    """The download has no such bytes."""


def wants_part(range_: str | None, if_range: str | None, etag: str) -> bool:
    """Whether a part is asked for: one range of bytes, of this version of the download.

    Several ranges at once are answered whole, as the standard allows; so is what cannot be read.
    """
    if range_ is None or (if_range is not None and if_range.strip() != etag):
        return False
    found = _RANGE.fullmatch(range_.strip())
    return found is not None and (found[1] != "" or found[2] != "") and not _is_backwards(found[1], found[2])


def _is_backwards(first: str, last: str) -> bool:
    return first != "" and last != "" and int(last) < int(first)


def part_of(range_: str, total_bytes: int) -> tuple[int, int]:
    """Return the first byte that is asked for, and the one after the last.

    Args:
        range_: a header of which :func:`wants_part` said yes.
        total_bytes: of the download.

    Raises:
        UnsatisfiableError: the download has no such bytes.
    """
    found = _RANGE.fullmatch(range_.strip())
    if found is None:
        raise UnsatisfiableError(range_)
    first, last = found[1], found[2]
    if first == "":
        start, stop = max(0, total_bytes - int(last)), total_bytes
    else:
        start, stop = int(first), total_bytes if last == "" else min(int(last) + 1, total_bytes)
    if start >= stop:
        raise UnsatisfiableError(range_)
    return start, stop


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether a client holds this version of the download already."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
