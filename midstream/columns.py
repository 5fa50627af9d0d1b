"""The Arrow schemas of rows inside Kafka blocks, in the order in which they are inserted.

``validate`` writes a block of ``VALID`` rows once; ``store`` drops rows and adds columns, and reads nothing it need
not.

Versions run side by side while Midstream is upgraded, and blocks are read again. So a column that is added is nullable
here, and a block without it has nulls there, for which ClickHouse stores the column's default. A column keeps its type
for ever. One that a block has beyond these, of a newer version, is stored as it is (docs/upgrading.md).
"""

from __future__ import annotations

import pyarrow as pa

_MS = pa.timestamp("ms", tz="UTC")
_TEXT = pa.string()

VALID: pa.Schema = pa.schema(
    [
        pa.field("mid", _TEXT, nullable=False),
        pa.field("mid_hash", pa.uint64(), nullable=False),  # xxh3_64 of mid's UTF-8: ClickHouse's xxh3(mid)
        pa.field("eid", _TEXT, nullable=False),
        pa.field("ver", _TEXT, nullable=False),
        pa.field("ets", _MS, nullable=False),
        pa.field("ets_original", _TEXT, nullable=False),
        pa.field("received_at", _MS, nullable=False),
        pa.field("sent_at", _MS),
        pa.field("skew_ms", pa.int64()),  # received_at minus sent_at: the device's clock against ours
        pa.field("channel", _TEXT, nullable=False),
        pa.field("env", _TEXT, nullable=False),
        pa.field("did", _TEXT, nullable=False),
        pa.field("sid", _TEXT, nullable=False),
        pa.field("actor_id", _TEXT, nullable=False),
        pa.field("actor_type", _TEXT, nullable=False),
        pa.field("pdata_id", _TEXT, nullable=False),
        pa.field("pdata_pid", _TEXT, nullable=False),
        pa.field("pdata_ver", _TEXT, nullable=False),
        pa.field("object_id", _TEXT, nullable=False),
        pa.field("object_type", _TEXT, nullable=False),
        pa.field("object_ver", _TEXT, nullable=False),
        pa.field("object_rollup", _TEXT, nullable=False),
        pa.field("context_rollup", _TEXT, nullable=False),
        pa.field("cdata", _TEXT, nullable=False),
        pa.field("tags", pa.list_(_TEXT), nullable=False),
        pa.field("edata", _TEXT, nullable=False),
        pa.field("edata_type", _TEXT, nullable=False),
        pa.field("edata_id", _TEXT, nullable=False),
        pa.field("edata_pageid", _TEXT, nullable=False),
        pa.field("edata_subtype", _TEXT, nullable=False),
        pa.field("edata_duration", pa.float64()),
        pa.field("late", pa.bool_(), nullable=False),
        pa.field("batch_id", _TEXT, nullable=False),
        pa.field("event_index", pa.uint32(), nullable=False),
        pa.field("content_hash", pa.uint64(), nullable=False),  # xxh3_64 of raw
        pa.field("raw", _TEXT, nullable=False),
    ]
)
