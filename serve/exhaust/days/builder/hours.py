"""An hour's file while it is written: gzip of lines, or a table. Its bytes depend on the events alone."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from serve.exhaust.days.builder.gzips import compressed

if TYPE_CHECKING:
    import pyarrow as pa

_READ_BYTES = 1 << 18
_ROW_GROUP_ROWS = 20_000


class HourFile:
    """A file without a name, and what is to be known of it once it is written."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115  closed by close()
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        self.crc32 = 0

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self._file.write(data)
        self._sha256.update(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        self.bytes += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """Of what was written, hex."""
        return self._sha256.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """Yield what was written, and close."""
        self._file.seek(0)
        while chunk := self._file.read(_READ_BYTES):
            yield chunk
        self._file.close()


def write_lines(file: HourFile, lines: Iterator[bytes]) -> None:
    """Write lines as gzip."""
    for piece in compressed(lines):
        file.write(piece)


def write_csv(file: HourFile, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Write rows as gzip of CSV with a header row; text is quoted, null is nothing."""
    for piece in compressed(_csv(schema, batches)):
        file.write(piece)


def _csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    from pyarrow import BufferOutputStream, csv

    header = True
    for batch in _or_one_empty(schema, batches):
        piece = BufferOutputStream()
        csv.write_csv(batch, piece, csv.WriteOptions(include_header=header))
        yield piece.getvalue().to_pybytes()
        header = False


def write_parquet(file: HourFile, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Write rows as Parquet, in row groups that hold so many rows however the rows came."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.PythonFile(_Sink(file), mode="w")
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        held: list[pa.RecordBatch] = []
        rows = 0
        for batch in batches:
            while rows + batch.num_rows >= _ROW_GROUP_ROWS:
                head = batch.slice(0, _ROW_GROUP_ROWS - rows)
                batch = batch.slice(head.num_rows)
                _write_group(writer, schema, [*held, head])
                held, rows = [], 0
            if batch.num_rows:
                held.append(batch)
                rows += batch.num_rows
        if held:
            _write_group(writer, schema, held)


def _write_group(writer: object, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
    import pyarrow as pa

    # One chunk a column: how the rows came must not show in the file.
    writer.write_table(pa.Table.from_batches(batches, schema).combine_chunks(), row_group_size=_ROW_GROUP_ROWS)  # type: ignore[attr-defined]


def _or_one_empty(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    yield pa.RecordBatch.from_pylist([], schema)
    yield from batches


class _Sink:
    """As much of a file as Arrow writes to."""

    def __init__(self, file: HourFile) -> None:
        self._file = file
        self.closed = False

    def write(self, data: bytes) -> int:
        return self._file.write(bytes(data))

    def tell(self) -> int:
        return self._file.bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
