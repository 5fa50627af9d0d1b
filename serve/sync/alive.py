"""Which objects ClickHouse has a row of, and how many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from midstream.clickhouse.portions import portions

Rows = Callable[[str, dict[str, Any]], Sequence[tuple[Any, ...]]]
"""Runs a query of ClickHouse with its parameters; may raise ClickHouseError."""

_ALIVE = """\
SELECT id
FROM dimensions
WHERE type = {type:String} AND id IN {ids:Array(String)} AND NOT deleted
"""
_COUNT = "SELECT count() FROM dimensions WHERE type = {type:String} AND NOT deleted"


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
