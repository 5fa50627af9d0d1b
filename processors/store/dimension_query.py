"""Asking ClickHouse for dimension rows: many ids of several types in few queries, and no more bytes than fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from midstream.clickhouse.client import ClickHouse

_MAX_QUERY_IDS = 5_000
# The ids of a query are fields of a form, of each of which ClickHouse takes 128 KiB (http_max_field_value_size).
_MAX_FIELD_ID_BYTES = 64 * 1024
_ESCAPED = re.compile(r"[\\'`\t\n]")
_SMALL_BYTES = 8 * 1024
_MAX_LARGE_BYTES = 128 * 1024 * 1024
"""Of all attributes above :data:`_SMALL_BYTES` that are asked for together."""

Key = tuple[str, str]
"""Type and id."""


class DimensionRow(NamedTuple):
    """One row of the view ``dimensions``."""

    attributes: str
    version: int
    deleted: bool
    is_left_out: bool = False
    """Whether the attributes are "" because they did not fit beside the others."""


def find_dimensions(clickhouse: ClickHouse, wanted: Mapping[str, Sequence[str]]) -> dict[Key, DimensionRow]:
    """Return the rows of those objects of each type that there are.

    The first ids of every type are asked for in one query, then the next ones: a query costs milliseconds, nearly
    whatever it asks for. Large attributes are asked for afterwards, until there are too many.

    Raises:
        ClickHouseError: a query failed.
    """
    found: dict[Key, DimensionRow] = {}
    large: dict[str, list[str]] = {}
    large_bytes = 0
    text = f"if(size > {_SMALL_BYTES}, '', attributes), version, deleted, length(attributes) AS size"
    for type_, id_, attributes, version, deleted, size in _ask(clickhouse, text, wanted):
        is_left_out = size > _SMALL_BYTES
        found[type_, id_] = DimensionRow(attributes, version, deleted, is_left_out)
        if is_left_out and large_bytes + size <= _MAX_LARGE_BYTES:
            large_bytes += size
            large.setdefault(type_, []).append(id_)
    for type_, id_, attributes, version, deleted in _ask(clickhouse, "attributes, version, deleted", large):
        found[type_, id_] = DimensionRow(attributes, version, deleted)
    return found


def _ask(clickhouse: ClickHouse, columns: str, wanted: Mapping[str, Sequence[str]]) -> Iterator[tuple[Any, ...]]:
    chunks = ([(type_, chunk) for chunk in _chunks(ids)] for type_, ids in wanted.items())
    for parts in zip_longest(*chunks):
        conditions: list[str] = []
        parameters: dict[str, Any] = {}
        for at, (type_, ids) in enumerate(filter(None, parts)):
            conditions.append(f"type = {{type_{at}:String}} AND id IN {{ids_{at}:Array(String)}}")
            parameters |= {f"type_{at}": type_, f"ids_{at}": ids}
        yield from clickhouse.rows(
            f"SELECT type, id, {columns} FROM dimensions WHERE {' OR '.join(conditions)}",  # noqa: S608 - parameters
            parameters,
        )


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """Cut ids into those of one query each."""
    chunk: list[str] = []
    size = 0
    for id_ in ids:
        # As an element of an array's text: quoted, with its escapes, and a comma and a blank after it.
        id_bytes = (len(id_) if id_.isascii() else len(id_.encode())) + len(_ESCAPED.findall(id_)) + 4
        if chunk and (len(chunk) == _MAX_QUERY_IDS or size + id_bytes > _MAX_FIELD_ID_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(id_)
        size += id_bytes
    if chunk:
        yield chunk
