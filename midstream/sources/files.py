"""A source that is a file, or a folder of files, as ``midstream dimensions load`` takes them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import msgspec

from midstream.dimension_files import make_item
from midstream.dimensions import Dimension, DimensionType, VersionClock, max_line_bytes
from midstream.lines import GZIP_MARK
from midstream.row_files import CsvRow, FileCutError, FileError, JsonLine, Refusal, Row, read_rows
from midstream.sources.config import FileConfig
from midstream.sources.errors import SourceCode, SourceError
from midstream.sources.reading import Block, Deadline, Reading, Refused, only


class _HasId(msgspec.Struct):
    id: str | int


_id_decoder = msgspec.json.Decoder(_HasId)


class FileSource:
    """Reads a file, or all files of a folder in the order of their names: but those that begin with a dot, and
    folders in it. It has no way to give changes only."""

    incremental = False

    def __init__(self, type_: DimensionType, config: FileConfig, max_attributes_bytes: int) -> None:
        self.type = type_
        self._path = Path(config.path)
        self._timeout_ms = config.read_timeout_ms
        self._max_bytes = max_attributes_bytes

    def read(self, ids: Sequence[str] | None = None, since: str | None = None) -> Reading:
        """See :class:`midstream.sources.reading.Source`."""
        return Reading(self._blocks(None if ids is None else frozenset(ids)), True, lambda: None)

    def _blocks(self, ids: frozenset[str] | None) -> Iterator[Block]:
        deadline = Deadline(self._timeout_ms)
        clock = VersionClock()
        before = _states(self._path)
        for path in before:
            for rows in self._rows(path):
                deadline.check()
                block = [self._item(path.name, row, clock) for row in rows]
                yield only(block, ids)
        if _states(self._path) != before:
            raise SourceError(SourceCode.SOURCE_CHANGED, f"{self._path} was changed while it was read")

    def _rows(self, path: Path) -> Iterator[list[Row]]:
        try:
            with path.open("rb") as file:
                packed = file.read(2) == GZIP_MARK
                file.seek(0)
                tail = _Tail(cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file)
                last: Row | None = None
                limits = (max_line_bytes(self._max_bytes), self._max_bytes)
                for rows, _ in read_rows(cast(BinaryIO, tail), ("id",), *limits):
                    last = rows[-1] if rows else last
                    yield rows
                if last is not None and tail.last not in (b"", b"\n", b"\r") and _is_half(last):
                    raise SourceError(
                        SourceCode.SOURCE_CUT, f"{path.name}, line {last.line}: the file ends in half a line"
                    )
        except FileCutError as error:
            raise SourceError(SourceCode.SOURCE_CUT, f"{path.name}: {error}") from None
        except FileError as error:
            raise SourceError(SourceCode.SOURCE_UNREADABLE, f"{path.name}: {error}") from None
        except OSError as error:
            raise SourceError(SourceCode.SOURCE_UNAVAILABLE, f"{path}: {error.strerror or error}") from None

    def _item(self, name: str, row: Row, clock: VersionClock) -> Dimension | Refused:
        id_ = _id_of(row)  # before the row is used up
        item = make_item(self.type, row, clock, self._max_bytes)
        if isinstance(item, Refusal):
            return Refused(f"{name}, line {item.line}", item.code, item.message, id_)
        return item


class _State(NamedTuple):
    """What changes when a file is written."""

    inode: int
    size_bytes: int
    modified_ns: int


class _Tail:
    """Reads a file, and remembers the last byte that was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = b""

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.last = data[-1:] or self.last
        return data


def _states(path: Path) -> dict[Path, _State]:
    """Return the files to read, in order, with the state of each."""
    try:
        if path.is_dir():
            files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        elif path.is_file():
            files = [path]
        else:
            message = "neither a file nor a folder" if path.exists() else "there is no such file or folder"
            raise SourceError(SourceCode.SOURCE_UNAVAILABLE, f"{path}: {message}")
        found = {}
        for file in files:
            stat = file.stat()
            found[file] = _State(stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return found
    except OSError as error:
        raise SourceError(SourceCode.SOURCE_UNAVAILABLE, f"{path}: {error.strerror or error}") from None


def _id_of(row: Row) -> str | None:
    """Return whose row it is; None when that cannot be told."""
    if isinstance(row, Refusal):
        return None
    if isinstance(row, CsvRow):
        return row.cells.get("id", "")
    try:
        return str(_id_decoder.decode(row.text).id)
    except msgspec.ValidationError:
        return ""  # JSON, and nothing in it that could be an id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_half(row: Row) -> bool:
    """Whether a row that has no end of line is no whole one."""
    if isinstance(row, JsonLine):
        try:
            msgspec.json.decode(row.text, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError):
            return True
        return False
    return isinstance(row, Refusal) and row.code == "INVALID_ROW"
