"""Which objects ClickHouse has a row of, and how many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Rows = Callable[[str, dict[str, Any]], Sequence[tuple[Any, ...]]]
"""Runs a query of ClickHouse with its parameters; may raise ClickHouseError."""

_QUERY_IDS_BYTES = 64 * 1024  # of ids in a query's parameter: ClickHouse takes 128 KiB

_ALIVE = """\
SELECT id
FROM dimensions
WHERE type = {type:String} AND id IN {ids:Array(String)} AND NOT deleted
"""
_COUNT = "SELECT count() FROM dimensions WHERE type = {type:String} AND NOT deleted"


def portions(ids: Sequence[str]) -> Iterator[list[str]]:
    """Yield ids, as many at a time as one query takes."""
    portion: list[str] = []
    size_bytes = 0
    for id_ in ids:
        id_bytes = 2 * len(id_.encode()) + 4  # every character may need an escape
        if portion and size_bytes + id_bytes > _QUERY_IDS_BYTES:
            yield portion
            portion, size_bytes = [], 0
        portion.append(id_)
        size_bytes += id_bytes
    if portion:
        yield portion


def alive(rows: Rows, type_: str, ids: Sequence[str]) -> set[str]:
    """Return those of some ids of which there is a row that is not deleted.

    Raises:
        ClickHouseError: it does not answer.
    """
    found: set[str] = set()
    for some in portions(ids):
        found.update(row[0] for row in rows(_ALIVE, {"type": type_, "ids": some}))
    return found


def count_alive(rows: Rows, type_: str) -> int:
    """Return how many objects of a type there are.

    Raises:
        ClickHouseError: it does not answer.
    """
    return int(rows(_COUNT, {"type": type_})[0][0])
