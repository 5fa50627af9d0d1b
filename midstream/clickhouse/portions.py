"""Ids in queries' parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_QUERY_IDS_BYTES = 64 * 1024  # of ids in a query's parameter: ClickHouse takes 128 KiB


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
