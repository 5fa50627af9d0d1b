"""A ``telemetry.valid`` value as an Arrow record batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from midstream import topics
from midstream.columns import VALID
from midstream.records import RecordError, decode_record
from processors.store.dedupe.history import Hashes


def read_block(value: bytes) -> tuple[pa.RecordBatch, int]:
    """Return the rows of a block, columns :data:`midstream.columns.VALID`, and over how many partitions mids were
    spread.

    Raises:
        RecordError: the value is no block, or the rows in it cannot be read.
        MemoryError: for whatever reason, which may lie in this process; it says nothing about the value.
    """
    record = decode_record(topics.VALID.name, value)
    try:
        with pa.ipc.open_stream(record["arrow"]) as reader:
            table = reader.read_all()
        table.validate()
        if table.schema != VALID:
            raise RecordError(f"the rows of a {topics.VALID.name} block have other columns than expected")
        batches = table.combine_chunks().to_batches()
    except MemoryError:  # Arrow's is an ArrowException too
        raise
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"the rows of a {topics.VALID.name} block cannot be read: {error}") from error
    if len(batches) != 1 or batches[0].num_rows != record["rows"]:
        raise RecordError(f"a {topics.VALID.name} block says {record['rows']} rows and holds {table.num_rows}")
    return batches[0], record["partitions"]


def mid_hashes(block: pa.RecordBatch) -> Hashes:
    """Return the hashes of the block's mids."""
    hashes: Hashes = block.column("mid_hash").to_numpy(zero_copy_only=True)
    return np.asarray(hashes, dtype=np.uint64)
