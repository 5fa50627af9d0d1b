"""Rows as ClickHouse sends them in an Arrow stream, cut where one hour's end and the next one's begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from serve.exhaust.days.builder.errors import BuildError


class _Readable:
    """Chunks as a file that can only be read forward."""

    closed = False

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = bytearray()

    def readable(self) -> bool:
        return True

    def read(self, size: int) -> bytes:
        while len(self._held) < size and (chunk := next(self._chunks, b"")):
            self._held += chunk
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def close(self) -> None:
        self.closed = True


def read_batches(chunks: Iterator[bytes], events: int) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow stream, which must hold ``events`` rows together.

    Raises:
        BuildError: they hold others, or the stream is broken.
    """
    rows = 0
    try:
        with pa.ipc.open_stream(pa.PythonFile(_Readable(chunks), mode="r")) as reader:
            for batch in reader:
                rows += batch.num_rows
                yield batch
    except pa.ArrowInvalid as error:
        raise BuildError(f"what ClickHouse sent is no Arrow stream: {error}") from None
    if rows != events:
        raise BuildError(f"{rows} rows came for the {events} events that ClickHouse had counted")


class RowStream:
    """Rows in batches of any size, taken so many at a time."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self._rest: pa.RecordBatch | None = None

    def schema(self) -> pa.Schema:
        """Return the columns of the rows that come next.

        Raises:
            BuildError: none come.
        """
        return self._next(1).schema

    def take(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the next ``rows`` rows.

        Raises:
            BuildError: there are fewer.
        """
        while rows:
            batch = self._next(rows)
            self._rest = None
            if batch.num_rows > rows:
                batch, self._rest = batch.slice(0, rows), batch.slice(rows)
            rows -= batch.num_rows
            yield batch

    def finish(self) -> None:
        """Check that no row is left.

        Raises:
            BuildError: there is.
        """
        if self._rest is not None or any(batch.num_rows for batch in self._batches):
            raise BuildError("more events came than ClickHouse had counted")

    def _next(self, wanted: int) -> pa.RecordBatch:
        while self._rest is None or not self._rest.num_rows:
            self._rest = next(self._batches, None)
            if self._rest is None:
                raise BuildError(f"{wanted} events fewer came than ClickHouse had counted")
        return self._rest
