"""What the accounting claims: how far everything is stored. Taken before the tables are copied, put in their place
after they were restored: the copied claims may be newer than the copied events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence

import pyarrow as pa

from midstream.backup.manifest import Claim
from midstream.clickhouse.client import ClickHouse

_MS = pa.timestamp("ms", tz="UTC")
_TRIES = 5
_CLAIMED = ("progress_rows", "watermark_rows", "collector_rows")
"""Tables of claims; what collectors promised is read again from Kafka."""


def read_claims(clickhouse: ClickHouse) -> tuple[list[Claim], dict[str, int]]:
    """Return the progress of each partition, and the watermarks (epoch milliseconds by name).

    Raises:
        ClickHouseError: ClickHouse does not answer.
    """
    progress = clickhouse.rows(
        "SELECT topic, partition, complete_offset, toUnixTimestamp64Milli(since), toUnixTimestamp64Milli(published_at) "
        "FROM progress ORDER BY topic, partition"
    )
    marks = clickhouse.rows(
        "SELECT watermark, toUnixTimestamp64Milli(max(reached)) FROM watermark_rows GROUP BY watermark"
    )
    return [Claim(*row) for row in progress], {str(name): int(reached) for name, reached in marks}


def replace_claims(
    clickhouse: ClickHouse, cluster: str, claims: Sequence[Claim], watermarks: Mapping[str, int]
) -> None:
    """Have the accounting claim this and no more. Raises ClickHouseError; done again, it is the same."""
    for table in _CLAIMED:
        name = f"{table}_local ON CLUSTER '{cluster}'" if cluster else table
        clickhouse.command(f"TRUNCATE TABLE {name} SYNC")
    _insert(
        clickhouse,
        "progress_rows",
        {
            "topic": pa.array([one.topic for one in claims], pa.string()),
            "partition": pa.array([one.partition for one in claims], pa.uint32()),
            "complete_offset": pa.array([one.complete_offset for one in claims], pa.uint64()),
            "published_at": pa.array([one.published_ms for one in claims], _MS),
            "since": pa.array([one.since_ms for one in claims], _MS),
        },
    )
    _insert(
        clickhouse,
        "watermark_rows",
        {
            "watermark": pa.array(list(watermarks), pa.string()),
            "reached": pa.array(list(watermarks.values()), _MS),
        },
    )


def insert_erased(clickhouse: ClickHouse, digests: Sequence[str]) -> None:
    """Have ``store`` know who was erased before it stores anything. Raises ClickHouseError."""
    now_ms = time.time_ns() // 1_000_000
    moments = pa.array([now_ms] * len(digests), _MS)
    _insert(
        clickhouse,
        "dimension_rows",
        {
            "type": pa.array(["erased"] * len(digests), pa.string()),
            "id": pa.array(digests, pa.string()),
            "attributes": pa.array(["{}"] * len(digests), pa.string()),
            "version": pa.array([1] * len(digests), pa.int64()),
            "deleted": pa.array([False] * len(digests), pa.bool_()),
            "updated_at": moments,
            "stored_at": moments,
        },
    )


def insert_batch(clickhouse: ClickHouse, table: str, rows: pa.RecordBatch) -> None:
    """Insert rows of which several alike count as one. Raises ClickHouseError."""
    if not rows.num_rows:
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    body: bytes = sink.getvalue().to_pybytes()
    clickhouse.insert_stream(table, rows.schema.names, body, uuid.uuid4().hex, tries=_TRIES, before_try=lambda _: None)


def _insert(clickhouse: ClickHouse, table: str, columns: dict[str, pa.Array]) -> None:
    insert_batch(clickhouse, table, pa.RecordBatch.from_pydict(columns))
