"""A ``telemetry.valid`` value as an Arrow record batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from midstream import topics
from midstream.columns import VALID
from midstream.records import RecordError, decode_record
from processors.store.dedupe.history import Hashes

# By who reads: what other threads inflate lies in memory of theirs, which they keep for the next block.
_IPC = pa.ipc.IpcReadOptions(use_threads=False)


def read_block(value: bytes) -> tuple[pa.RecordBatch, int]:
    """Return the rows of a block, and over how many partitions mids were spread.

    Its columns are :data:`midstream.columns.VALID`, then those that a newer version has added, which are nullable. One
    that an older version did not write is null.

    Raises:
        RecordError: the value is no block, or the rows in it cannot be read.
        OtherVersionError: it is a block of another version of Midstream that this one cannot read.
        MemoryError: for whatever reason, which may lie in this process; it says nothing about the value.
    """
    record = decode_record(topics.VALID.name, value)
    try:
        with pa.ipc.open_stream(record["arrow"], options=_IPC) as reader:
            table = reader.read_all()
        table.validate()
        batches = _in_order(table).combine_chunks().to_batches()
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"the rows of a {topics.VALID.name} block cannot be read: {error}") from error
    if len(batches) != 1 or batches[0].num_rows != record["rows"]:
        raise RecordError(f"a {topics.VALID.name} block says {record['rows']} rows and holds {table.num_rows}")
    return batches[0], record["partitions"]


def other_columns(block: pa.RecordBatch) -> list[str]:
    """Return the names of a block's columns that this version does not know."""
    return list(block.schema.names[len(VALID) :])


def _in_order(table: pa.Table) -> pa.Table:
    if table.schema == VALID:
        return table
    names = table.schema.names
    has_ours = all(
        table.schema.field(field.name).equals(field) if names.count(field.name) == 1 else field.nullable
        for field in VALID
    )
    if not has_ours or len(set(names)) != len(names):
        raise RecordError(f"the rows of a {topics.VALID.name} block have other columns than expected")
    others = [field.with_nullable(True) for field in table.schema if field.name not in VALID.names]
    columns = [
        table.column(field.name) if field.name in names else pa.nulls(table.num_rows, field.type)
        for field in (*VALID, *others)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema([*VALID, *others]))


def mid_hashes(block: pa.RecordBatch) -> Hashes:
    """Return the hashes of the block's mids."""
    hashes: Hashes = block.column("mid_hash").to_numpy(zero_copy_only=True)
    return np.asarray(hashes, dtype=np.uint64)
