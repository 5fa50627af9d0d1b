"""Reads dimension rows from files: JSON lines or CSV, gzipped or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import msgspec

from midstream.dimensions import (
    Dimension,
    DimensionError,
    DimensionType,
    VersionClock,
    make_dimension,
    max_line_bytes,
    parse_row,
)
from midstream.row_files import CsvRow, Refusal, Row, read_rows

Item = Dimension | Refusal


def read_items(
    type_: DimensionType,
    file: BinaryIO,
    clock: VersionClock,
    max_attributes_bytes: int,
    erased: Callable[[Sequence[str]], set[str]] = lambda ids: set(),
) -> Iterator[tuple[list[Item], int]]:
    """Yield the rows and refusals of a file, some at a time, with the number of its bytes read so far.

    Args:
        type_: of the objects.
        file: of JSON lines or CSV.
        clock: gives versions to rows that have none.
        max_attributes_bytes: most bytes of an object's attributes.
        erased: which of some ids were erased; their rows are refused. What it raises is raised.

    Raises:
        FileError: it is corrupt, or no CSV with a column ``id``.
    """

    limits = (max_line_bytes(max_attributes_bytes), max_attributes_bytes)
    for rows, position in read_rows(file, ("id",), *limits):
        items = [make_item(type_, row, clock, max_attributes_bytes) for row in rows]
        if gone := erased([item.id for item in items if isinstance(item, Dimension)]):
            message = f"this {type_} was erased, and is not taken again"
            items = [
                Refusal(row.line, "ERASED", message) if isinstance(item, Dimension) and item.id in gone else item
                for row, item in zip(rows, items, strict=True)
            ]
        yield items, position


def make_item(type_: DimensionType, row: Row, clock: VersionClock, max_attributes_bytes: int) -> Item:
    """Make a dimension row of a row of a file, or say why it is refused."""
    if isinstance(row, Refusal):
        return row
    try:
        if isinstance(row, CsvRow):
            return _from_cells(type_, row.cells, clock, max_attributes_bytes)
        return parse_row(type_, row.text, clock, max_attributes_bytes)
    except DimensionError as error:
        return Refusal(row.line, error.code, str(error))


def _from_cells(
    type_: DimensionType, cells: dict[str, str], clock: VersionClock, max_attributes_bytes: int
) -> Dimension:
    id_ = cells.pop("id", "")
    version_text = cells.pop("version", "")
    if not version_text:
        version = clock.next(id_)
    elif version_text.isascii() and version_text.isdecimal() and len(version_text) <= 19:
        version = int(version_text)
    else:
        raise DimensionError("INVALID_VERSION", "version is an integer from 0 to 2^63-1")
    try:
        attributes = msgspec.json.encode(cells)
    except UnicodeEncodeError:
        raise DimensionError("INVALID_UTF8", "the row is not UTF-8") from None
    return make_dimension(type_, id_, attributes, version, max_attributes_bytes)
