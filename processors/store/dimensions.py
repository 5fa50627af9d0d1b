"""Rows of the ``dimensions`` topic, and of the table that they are stored in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import Dimension, DimensionType, InternalType, decode_dimension, now_ms
from midstream.logs import get_logger
from midstream.records import RecordError
from processors.store.erased import ErasedUsers

log = get_logger(__name__)

DIMENSION_TABLE = "dimension_rows"

DIMENSIONS: pa.Schema = pa.schema(
    [
        ("type", pa.string()),
        ("id", pa.string()),
        ("attributes", pa.string()),
        ("version", pa.int64()),
        ("deleted", pa.bool_()),
        ("updated_at", pa.timestamp("ms", tz="UTC")),
        ("stored_at", pa.timestamp("ms", tz="UTC")),
    ]
)


def decode_rows(records: Sequence[ConsumerRecord[Any, Any]]) -> list[Dimension]:
    """Return the rows in these records; one that is none is named in the log and left out.

    A record without a value has Kafka forget an object that was erased: it says nothing.
    """
    rows = []
    for record in records:
        if record.value is None:
            continue
        try:
            rows.append(decode_dimension(record.value))
        except (RecordError, ValueError) as error:
            # Nothing of ours writes such a record; it says nothing about any object that could be kept.
            log.warning(
                "dimensions.unreadable", partition=record.partition, offset=record.offset, error=str(error)[:200]
            )
    return rows


def dimension_rows(
    rows: Sequence[Dimension], erased: ErasedUsers, clock_ms: Callable[[], int] = now_ms
) -> pa.RecordBatch:
    """Return a row of :data:`DIMENSIONS` for each, for :class:`processors.store.sink.TableSink`.

    Rows of erased users are left out: Kafka holds them until it compacts the topic, and who reads it from the beginning
    must not bring them back.
    """
    gone = erased.find(row.id for row in rows if row.type == DimensionType.USER)
    rows = [row for row in rows if not (row.type == DimensionType.USER and row.id in gone)]
    columns: dict[str, list[Any]] = {
        "type": [row.type.value for row in rows],
        "id": [row.id for row in rows],
        "attributes": [row.attributes for row in rows],
        "version": [row.version for row in rows],
        "deleted": [row.deleted for row in rows],
        "updated_at": [row.updated_at_ms for row in rows],
        "stored_at": [clock_ms()] * len(rows),
    }
    return pa.RecordBatch.from_pydict(columns, schema=DIMENSIONS)


def load_erased(clickhouse: ClickHouse, erased: ErasedUsers) -> None:
    """Read which users were erased. An id that was erased is so for good.

    Raises:
        ClickHouseError: they cannot be read.
        ErasedError: see :meth:`ErasedUsers.add`.
    """
    rows = clickhouse.rows(
        f"SELECT DISTINCT id FROM {DIMENSION_TABLE} WHERE type = {{type:String}}",  # noqa: S608 - a constant
        {"type": InternalType.ERASED.value},
    )
    erased.add(row[0] for row in rows)
