"""All mids stored so far, as 64-bit hashes: sorted arrays while memory lasts, filters beyond.

A hit means "maybe": the whole mid is compared before anything is called a duplicate. A miss is certain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rbloom import Bloom

Hashes = npt.NDArray[np.uint64]

_FALSE_POSITIVES = 1e-5
_BYTES_A_HASH = 8
_MERGE_RATIO = 4
_FILTER_CHUNK = 1 << 20


def _slot(value: int) -> int:
    """Spread a hash over the signed 128 bits that rbloom wants; the halves must be independent of each other."""
    mixed = (value * 0x9E3779B97F4A7C15F39CC0605CEDC835) & ((1 << 128) - 1)
    mixed ^= mixed >> 67
    return mixed - (1 << 127)


class History:
    """A set of hashes that only grows, within ``memory_bytes``.

    Sorted arrays are merged when the next is not much smaller, so that there are few (about log4 of the size) and
    adding costs little on average. When they outgrow the bound, the largest becomes a Bloom filter (3 bytes a mid
    instead of 8); when the filters alone outgrow it, nothing is held any more and every hash is a "maybe"
    (:attr:`saturated`).
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._runs: list[Hashes] = []
        self._filters: list[Bloom] = []
        self._filtered = 0
        self.saturated = False

    @property
    def sorted_mids(self) -> int:
        """Hashes held in sorted arrays."""
        return sum(len(run) for run in self._runs)

    @property
    def filtered_mids(self) -> int:
        """Hashes held in filters."""
        return self._filtered

    @property
    def held_bytes(self) -> int:
        """Memory held."""
        return self.sorted_mids * _BYTES_A_HASH + sum(f.size_in_bits // 8 for f in self._filters)

    def add(self, hashes: Hashes) -> None:
        """Add hashes, in any order."""
        if self.saturated or len(hashes) == 0:
            return
        self._runs.append(np.sort(hashes))
        while len(self._runs) > 1 and len(self._runs[-2]) < _MERGE_RATIO * len(self._runs[-1]):
            last = self._runs.pop()
            # A stable sort of two sorted halves is a merge (numpy's radix/timsort sees the runs).
            self._runs[-1] = np.sort(np.concatenate((self._runs[-1], last)), kind="stable")
        while self.held_bytes > self._memory_bytes and not self.saturated:
            self._shrink()

    def _shrink(self) -> None:
        if not self._runs:
            self._filters, self._filtered, self.saturated = [], 0, True
            return
        run = self._runs.pop(0)
        bloom = Bloom(len(run), _FALSE_POSITIVES, _slot)
        for start in range(0, len(run), _FILTER_CHUNK):
            bloom.update(run[start : start + _FILTER_CHUNK].tolist())
        self._filters.append(bloom)
        self._filtered += len(run)

    def maybe(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Tell for each hash whether it may have been added; False is certain."""
        if self.saturated:
            return np.ones(len(hashes), dtype=np.bool_)
        found = np.zeros(len(hashes), dtype=np.bool_)
        if len(hashes) == 0:
            return found
        order = np.argsort(hashes)  # neighbours in the query are neighbours in the array: the cache is hit
        query = hashes[order]
        hit = np.zeros(len(hashes), dtype=np.bool_)
        for run in self._runs:
            place = np.searchsorted(run, query)
            place[place == len(run)] = 0
            hit |= run[place] == query
        found[order] = hit
        for bloom in self._filters:
            for index in np.flatnonzero(~found):
                if int(hashes[index]) in bloom:
                    found[index] = True
        return found
