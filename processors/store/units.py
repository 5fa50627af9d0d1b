"""Insert units: the rows that go to one table together, their body and their token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from processors.store.route import route

_LARGE_BYTES = 64 * 1024
"""A piece from this size on is sent by itself; smaller ones are joined."""

# Uncompressed: ClickHouse is on this machine or in this rack, and lz4 costs more CPU than it saves there.
_IPC = pa.ipc.IpcWriteOptions(use_threads=False)


class _Pieces:
    """A file for Arrow to write to, which keeps buffers as they are."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._small: list[bytes] = []

    def write(self, data: bytes | pa.Buffer) -> int:
        """Take what Arrow writes: bytes of its own frame, or a buffer of a column."""
        size = len(data)
        if size < _LARGE_BYTES:
            self._small.append(bytes(memoryview(data)))
        else:
            self._join_small()
            self._pieces.append(memoryview(data))
        return size

    def _join_small(self) -> None:
        if self._small:
            self._pieces.append(b"".join(self._small))
            self._small.clear()

    def all(self) -> list[bytes | memoryview]:
        """Return what was written."""
        self._join_small()
        return self._pieces

    def flush(self) -> None:
        """Do nothing, as :meth:`close`: Arrow asks for it."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class InsertUnit:
    """Rows for one table. The same record always makes the same units, as far as their rows are concerned."""

    table: str
    rows: pa.RecordBatch
    token: str
    depth: int = 0
    """How often it has been split."""

    def body(self) -> list[bytes | memoryview]:
        """Return the rows as an Arrow IPC stream, in pieces: what is large in it is the columns' own memory."""
        pieces = _Pieces()
        with pa.ipc.new_stream(pa.PythonFile(pieces, mode="w"), self.rows.schema, options=_IPC) as writer:
            writer.write_batch(self.rows)
        return pieces.all()

    def halves(self) -> list[InsertUnit]:
        """Split, for finding the row that ClickHouse refuses: into two, or one where all rows lie on one side.

        A row's side depends on its arrival alone, and the token on the sides taken. So whoever splits what is left of a
        record after a crash puts the same rows under the same token as one who still holds all of it.
        """
        arrivals = zip(
            self.rows.column("batch_id").to_pylist(), self.rows.column("event_index").to_pylist(), strict=True
        )
        # Another seed for each level: no two arrivals stay together for ever.
        sides = np.array([xxhash.xxh3_64_intdigest(f"{b}/{i}".encode(), seed=self.depth) & 1 for b, i in arrivals])
        return [
            InsertUnit(
                self.table,
                self.rows.take(pa.array(np.flatnonzero(sides == side))),
                f"{self.token}.{side}",
                self.depth + 1,
            )
            for side in (0, 1)
            if (sides == side).any()
        ]


def make_token(table: str, *values: bytes | memoryview) -> str:
    """Return the deduplication token of a table's rows made from these Kafka values.

    From the value, never from an offset: offsets repeat when a topic is made anew.
    """
    digest = xxhash.xxh3_128()
    for value in values:
        digest.update(value)
    return f"{digest.hexdigest()}/{table}"


def split_by_table(eids: pa.Array) -> Iterator[tuple[str, npt.NDArray[np.int64] | None]]:
    """Yield each table that these events go to with the indices of its rows; None instead when all go to one."""
    if len(eids) == 0:
        return
    encoded = eids.dictionary_encode()
    tables = [route(eid) for eid in encoded.dictionary.to_pylist()]
    distinct = sorted(set(tables))
    if len(distinct) == 1:
        yield distinct[0], None
        return
    number = np.array([distinct.index(table) for table in tables], dtype=np.int64)
    by_row = number[encoded.indices.to_numpy()]
    for index, table in enumerate(distinct):
        yield table, np.flatnonzero(by_row == index)


def event_units(
    block: pa.RecordBatch,
    new: npt.NDArray[np.int64] | None,
    extra_names: Sequence[str],
    extra: Sequence[pa.Array],
    value: bytes,
) -> list[InsertUnit]:
    """Return the units of a block's new rows.

    Args:
        block: its rows.
        new: indices of those that are new; None: all are.
        extra_names: names of the columns that ``store`` adds.
        extra: these columns, of the new rows; where they are dictionaries, units have the values themselves.
        value: the Kafka value that the block came in.
    """
    names = [*block.schema.names, *extra_names]
    eids = block.column("eid")
    units = []
    for table, indices in split_by_table(eids if new is None else eids.take(pa.array(new))):
        places, added = new, extra
        if indices is not None:
            # Once from the block itself: taking rows of so many columns is what costs.
            places = indices if new is None else new[indices]
            added = [column.take(pa.array(indices)) for column in extra]
        rows = block if places is None else block.take(pa.array(places))
        plain = [column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column for column in added]
        wide = pa.RecordBatch.from_arrays([*rows.columns, *plain], names=names)
        units.append(InsertUnit(table, wide, make_token(table, value)))
    return units
