"""What ClickHouse has of objects, beside what their source says. Pure but for the queries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from midstream.clickhouse.portions import portions
from midstream.dimensions import MAX_VERSION, Dimension, DimensionType
from serve.sync.alive import Rows

_PAGE_IDS = 20_000

_KNOWN = """\
SELECT id, version, deleted, hex(MD5(attributes))
FROM dimensions
WHERE type = {type:String} AND id IN {ids:Array(String)}
"""
_PAGE = """\
SELECT id, version, deleted
FROM dimensions
WHERE type = {type:String} AND id > {after:String}
    AND updated_at < fromUnixTimestamp64Milli({before:Int64}, 'UTC')
ORDER BY id
LIMIT {limit:UInt32}
"""
_SOME = """\
SELECT id, version, deleted
FROM dimensions
WHERE type = {type:String} AND id IN {ids:Array(String)}
    AND updated_at < fromUnixTimestamp64Milli({before:Int64}, 'UTC')
"""


class Known(NamedTuple):
    """A row of ClickHouse; ``md5`` is of its attributes, in hexadecimal digits."""

    version: int
    deleted: bool
    md5: str


@dataclass(slots=True)
class Changes:
    """Rows to publish, and how many were not to be: ``same`` as is known, or ``older``."""

    rows: list[Dimension]
    same: int = 0
    older: int = 0


def changes(rows: Sequence[Dimension], known: dict[str, Known], *, force: bool) -> Changes:
    """Return those rows of a source that say something new.

    Of an object that is known with a higher version a row counts only with ``force``; with the same version it counts
    where it says something else, as its source was put right. Of one that is known as deleted it always counts: a
    source that lacked it once does not lack it for ever.
    """
    found = Changes([])
    for row in rows:
        there = known.get(row.id)
        if there is None:
            found.rows.append(row)
            continue
        is_same = there.deleted == row.deleted and (row.deleted or there.md5 == _md5(row.attributes))
        if is_same:
            found.same += 1
        elif row.version > there.version:
            found.rows.append(row)
        elif (row.version == there.version or there.deleted or force) and there.version < MAX_VERSION:
            found.rows.append(msgspec.structs.replace(row, version=there.version + 1))
        else:
            found.older += 1
    return found


def find_known(rows: Rows, type_: str, ids: Sequence[str]) -> dict[str, Known]:
    """Return what ClickHouse has of some objects.

    Raises:
        ClickHouseError: it does not answer.
    """
    found: dict[str, Known] = {}
    for some in portions(ids):
        for id_, version, deleted, md5 in rows(_KNOWN, {"type": type_, "ids": some}):
            found[id_] = Known(int(version), bool(deleted), str(md5))
    return found


def all_known(rows: Rows, type_: str, ids: Sequence[str] | None, before_ms: int) -> Iterator[tuple[str, int, bool]]:
    """Yield id, version and whether it is deleted of each object that was written before a moment.

    Args:
        rows: queries ClickHouse.
        type_: of the objects.
        ids: of these; None: of all.
        before_ms: epoch milliseconds.

    Raises:
        ClickHouseError: it does not answer.
    """
    if ids is not None:
        for some in portions(ids):
            for id_, version, deleted in rows(_SOME, {"type": type_, "ids": some, "before": before_ms}):
                yield str(id_), int(version), bool(deleted)
        return
    after = ""
    while True:
        page = rows(_PAGE, {"type": type_, "after": after, "before": before_ms, "limit": _PAGE_IDS})
        for id_, version, deleted in page:
            yield str(id_), int(version), bool(deleted)
        if len(page) < _PAGE_IDS:
            return
        after = str(page[-1][0])


def _md5(attributes: str) -> str:
    return hashlib.md5(attributes.encode(), usedforsecurity=False).hexdigest().upper()


def deletion(type_: DimensionType, id_: str, known: Known | None, at_ms: int) -> Dimension | None:
    """Return the tombstone of an object; None when there is none to delete."""
    if known is None or known.deleted:
        return None
    return Dimension(type_, id_, "{}", min(max(known.version + 1, at_ms), MAX_VERSION), True, at_ms)
