"""Devices' rows in ClickHouse, many at once; deleted ones too, as a new row must be of a higher version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from midstream.dimensions import DimensionType
from midstream.logs import get_logger
from serve.register.attributes import NO_ROW, Row, read_attributes

_log = get_logger(__name__)

Query = Callable[[str, dict[str, Any]], Any]
"""Runs a query with its parameters and returns all rows."""

_SQL = """\
SELECT id, attributes, version, deleted
FROM dimensions
WHERE type = {type:String} AND id IN {ids:Array(String)}
"""


def find_rows(query: Query, dids: Sequence[str]) -> list[Row]:
    """Return the row of each device, in order. Blocks.

    Raises:
        ClickHouseError: ClickHouse does not answer.
    """
    rows = query(_SQL, {"type": DimensionType.DEVICE.value, "ids": list(dict.fromkeys(dids))})
    found = {id_: _row(attributes, version, bool(deleted)) for id_, attributes, version, deleted in rows}
    return [found.get(did, NO_ROW) for did in dids]


def _row(attributes: str, version: int, deleted: bool) -> Row:
    try:
        return Row({} if deleted else read_attributes(attributes), version, deleted)
    except msgspec.DecodeError:  # another program wrote it to Kafka: nothing in it can be kept
        _log.warning("device_register.unreadable_row", version=version)
        return Row({}, version)
