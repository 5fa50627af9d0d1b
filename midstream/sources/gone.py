"""What a source has no more: objects that are known and did not come become tombstones. Pure.

What came is remembered as 64-bit hashes, 16 bytes an id with its version. A known id whose hash came counts as one that
came: where two ids share a hash, a tombstone may be missing (for a million of a million ids, once in 18 million reads),
and never is one wrong. The seed is another in each read, so the next read finds it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from midstream.dimensions import MAX_VERSION, Dimension, DimensionType
from midstream.sources.errors import SourceCode, SourceError

NO_ATTRIBUTES = "{}"
_FIRST_TIME_MS = 100_000_000_000
"""Lower versions are no times in epoch milliseconds: this is in 1973."""


class Seen:
    """Ids that came, each with the highest version it came with."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._hashes = array("Q")
        self._versions = array("q")
        self._sorted: tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]] | None = None

    def add(self, id_: str, version: int) -> None:
        """Remember an id."""
        self._hashes.append(xxhash.xxh3_64_intdigest(id_.encode(), self._seed))
        self._versions.append(version)
        self._sorted = None

    @property
    def count(self) -> int:
        """Number of different ids."""
        return len(self._arrays()[0])

    def find(self, ids: Sequence[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return for each id whether it came, and with which version (0 when it did not)."""
        hashes, versions = self._arrays()
        asked = np.array([xxhash.xxh3_64_intdigest(id_.encode(), self._seed) for id_ in ids], np.uint64)
        if not len(hashes):
            return np.zeros(len(asked), np.bool_), np.zeros(len(asked), np.int64)
        at = np.minimum(np.searchsorted(hashes, asked), len(hashes) - 1)
        found = hashes[at] == asked
        return found, np.where(found, versions[at], 0)

    def _arrays(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        if self._sorted is None:
            hashes = np.frombuffer(self._hashes, np.uint64)
            versions = np.frombuffer(self._versions, np.int64)
            order = np.lexsort((versions, hashes))
            hashes, versions = hashes[order], versions[order]
            last = np.ones(len(hashes), np.bool_)  # of the same hashes: the one with the highest version
            last[:-1] = hashes[1:] != hashes[:-1]
            self._sorted = (hashes[last], versions[last])
        return self._sorted


class Known(NamedTuple):
    """An object that is known: its row in ``dimensions``, without the attributes."""

    id: str
    version: int
    deleted: bool


class Gone:
    """Compares what is known with what came.

    Attributes:
        known: objects compared so far that are no tombstones.
        gone: those of them that did not come.
        older: those of them that came with a lower version than is known: that row loses.
        restored: tombstones whose object came, with no higher version: the version that it came with, and the one that
            it needs to count. So a source that lacked some rows once does not lack them for ever. At most as many as
            rows came; some 200 bytes each.
    """

    def __init__(self, type_: DimensionType, seen: Seen, now_ms: int) -> None:
        self._type = type_
        self._seen = seen
        self._now_ms = now_ms
        self.known = 0
        self.gone = 0
        self.older = 0
        self.restored: dict[str, tuple[int, int]] = {}

    def compare(self, known: Sequence[Known]) -> list[Dimension]:
        """Return a tombstone for each known object that did not come."""
        if not known:
            return []
        came, versions = self._seen.find([one.id for one in known])
        known_versions = np.array([one.version for one in known], np.int64)
        deleted = np.array([one.deleted for one in known], np.bool_)
        gone = [known[at] for at in np.flatnonzero(~deleted & ~came).tolist()]
        self.known += len(known) - int(np.count_nonzero(deleted))
        self.gone += len(gone)
        self.older += int(np.count_nonzero(~deleted & came & (versions < known_versions)))
        for at in np.flatnonzero(deleted & came & (versions <= known_versions)).tolist():
            self.restored[known[at].id] = (int(versions[at]), min(known[at].version + 1, MAX_VERSION))
        return [tombstone(self._type, one.id, one.version, self._now_ms) for one in gone]

    def check(self, min_share: float) -> None:
        """Refuse a read that lacks too much: it may be empty, or half, by accident.

        Args:
            min_share: the least share of the known objects that must have come.

        Raises:
            SourceError: SOURCE_SHRUNK.
        """
        kept = self.known - self.gone
        if self.gone and (not kept or kept < min_share * self.known):
            raise SourceError(
                SourceCode.SOURCE_SHRUNK,
                f"of {self.known} known objects of type {self._type} the source has {kept}; the least share that a "
                f"sync takes without force is {min_share:g}",
            )


def tombstone(type_: DimensionType, id_: str, known_version: int, now_ms: int) -> Dimension:
    """Return the row that says: this object is no more."""
    # A count of the source's own must not jump to a time: its later versions would all lose.
    least = now_ms if known_version >= _FIRST_TIME_MS else 0
    version = min(max(known_version + 1, least), MAX_VERSION)
    return Dimension(type_, id_, NO_ATTRIBUTES, version, True, now_ms)


def in_blocks(known: Iterable[Known], size: int) -> Iterator[list[Known]]:
    """Yield what is known some at a time."""
    block: list[Known] = []
    for one in known:
        block.append(one)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
