"""What every kind of source gives: a reading, whose rows come in blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from midstream.dimensions import Dimension, DimensionError, DimensionType, check_id
from midstream.sources.errors import SourceCode, SourceError


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be taken. It costs only itself.

    Attributes:
        place: where it stands, such as ``users.jsonl, line 3``.
        code: as of :class:`midstream.dimensions.DimensionError`.
        message: why, in words.
        id: the object it is of; "" when it is of none that could be known, None when that cannot be told.
    """

    place: str
    code: str
    message: str
    id: str | None


Item = Dimension | Refused
Block = list[Item]


class Reading:
    """One read of a source, in blocks. Iterate over it once, and close it.

    Attributes:
        whole: whether what does not come is not in the source: all was asked for, or these ids, and not only changes.
    """

    def __init__(self, blocks: Iterator[Block], whole: bool, watermark: Callable[[], str | None]) -> None:
        self._blocks = blocks
        self._watermark = watermark
        self.whole = whole

    def __iter__(self) -> Iterator[Block]:
        return self._blocks

    @property
    def watermark(self) -> str | None:
        """What to give as ``since`` next time, once all blocks have come; None: the source has no such thing."""
        return self._watermark()

    def close(self) -> None:
        """Let go of the file or the connection."""
        close = getattr(self._blocks, "close", None)  # of a generator
        if close is not None:
            close()


class Source(Protocol):
    """A configured source of the objects of one type."""

    @property
    def type(self) -> DimensionType:
        """Of which objects."""
        ...

    @property
    def incremental(self) -> bool:
        """Whether it can be asked for changes only."""
        ...

    def read(self, ids: Sequence[str] | None = None, since: str | None = None) -> Reading:
        """Begin to read; nothing happens before the first block is asked for.

        Blocking, and not for a thread in which an event loop runs.

        Args:
            ids: only these objects; None: all.
            since: the watermark of an earlier read, for what changed since. Left out of account with ``ids``, and where
                the source is not incremental: :attr:`Reading.whole` says what was read.

        Raises:
            SourceError: while blocks are taken, at whatever keeps it from being read to its end.
        """
        ...


def askable(ids: Sequence[str]) -> list[str]:
    """Return the ids that an object can have, each once."""

    def is_one(id_: str) -> bool:
        try:
            check_id(id_)
        except DimensionError:
            return False
        return True

    return [id_ for id_ in dict.fromkeys(ids) if is_one(id_)]


def only(block: Block, asked: frozenset[str] | None) -> Block:
    """Return the rows of the objects that were asked for, and those of which it cannot be told whose they are."""
    return block if asked is None else [one for one in block if one.id is None or one.id in asked]


class Deadline:
    """When a whole read must be over."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._end_s = time.monotonic() + timeout_ms / 1000

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0 when none are."""
        return max(0.0, self._end_s - time.monotonic())

    def check(self) -> None:
        """Raise SourceError when it has passed."""
        if not self.left_s:
            raise self.error()

    def error(self) -> SourceError:
        """Return the error of a read that took too long."""
        return SourceError(
            SourceCode.SOURCE_TIMEOUT, f"the read took longer than read_timeout_ms, which is {self._timeout_ms}"
        )
