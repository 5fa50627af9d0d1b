"""The ``dimensions`` topic: rows for ClickHouse, and a listener that keeps this worker's cache fresh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord

from midstream import topics
from midstream.dimensions import Dimension, decode_dimension
from midstream.logs import get_logger
from midstream.records import RecordError
from midstream.settings import Settings
from processors.store.dimension_cache import DimensionCache

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
    ]
)


def _decode(records: Sequence[ConsumerRecord[Any, Any]]) -> list[Dimension]:
    rows = []
    for record in records:
        try:
            rows.append(decode_dimension(record.value or b""))
        except (RecordError, ValueError) as error:
            # Nothing of ours writes such a record; it says nothing about any object that could be kept.
            log.warning(
                "dimensions.unreadable", partition=record.partition, offset=record.offset, error=str(error)[:200]
            )
    return rows


def dimension_rows(records: Sequence[ConsumerRecord[Any, Any]]) -> list[dict[str, Any]]:
    """Return a row of ``dimensions`` for each record, for :class:`processors.store.sink.TableSink`."""
    return [
        {
            "type": row.type.value,
            "id": row.id,
            "attributes": row.attributes,
            "version": row.version,
            "deleted": row.deleted,
            "updated_at": row.updated_at_ms,
        }
        for row in _decode(records)
    ]


async def listen(settings: Settings, cache: DimensionCache) -> None:
    """Offer every new row of the topic to ``cache`` until cancelled.

    Without a group, so that each worker sees all partitions. It begins at the end: what is older is looked up in
    ClickHouse.

    Raises:
        KafkaError: Kafka cannot be read.
    """
    # Subscribed without a group: aiokafka then assigns all partitions, later ones too. (It knows the partitions of
    # topics that it is subscribed to, and of no others: they cannot be asked for and assigned by hand.)
    consumer = AIOKafkaConsumer(
        topics.DIMENSIONS.name,
        bootstrap_servers=settings.kafka_servers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="latest",
    )
    await consumer.start()
    try:
        await consumer.seek_to_end()
        while True:
            taken = await consumer.getmany(timeout_ms=1_000, max_records=5_000)
            for row in _decode([record for part in taken.values() for record in part]):
                cache.offer(row.type.value, row.id, row.attributes, row.version, row.deleted)
    finally:
        await consumer.stop()
