"""All mids stored so far, as 64-bit hashes: the newest in sorted arrays, the others in filters.

A hit means "maybe": the whole mid is compared before anything is called a duplicate. A miss is certain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from processors.store.dedupe.bloom import BlockedBloom, Hashes

__all__ = ["Hashes", "History"]

_BYTES_A_HASH = 8
_MERGE_RATIO = 4
_SORTED_SHARE = 8
"""Of the memory, one part in so many is for sorted arrays: merging them takes as much again for a moment."""
_FIRST_FILTER_SHARE = 16
_ROOM_TO_GROW = 1.25
_FILTER_BITS = 16
"""Bits a hash has in a filter, until memory is used up."""
_LEAST_FILTER_BITS = 4
"""With fewer, a filter answers "maybe" too often to be worth its memory."""


class History:
    """A set of hashes that only grows, within ``memory_bytes``.

    Sorted arrays are merged when the next is not much smaller, so that there are few (about log4 of the size) and
    adding costs little on average. When they outgrow their share, the largest goes into a Bloom filter (2 bytes a mid
    instead of 8); each filter is twice as large as the one before, so that few are asked: each adds its own errors.
    When memory is used up, the last one is filled further and is wrong more often: in the end nothing is held any more
    and every hash is a "maybe" (:attr:`saturated`).
    """

    def __init__(self, memory_bytes: int, expected: int = 0) -> None:
        """``expected``: how many hashes are going to be added soon; the first filter has room for them and more."""
        self._sorted_bytes = max(memory_bytes // _SORTED_SHARE, _BYTES_A_HASH)
        self._filter_bytes = max(memory_bytes - self._sorted_bytes, 0)
        wanted = int(expected * _ROOM_TO_GROW) * _FILTER_BITS // 8
        self._least_filter_bytes = max(self._filter_bytes // _FIRST_FILTER_SHARE, _BYTES_A_HASH)
        self._first_filter_bytes = max(wanted, self._least_filter_bytes)
        self._runs: list[Hashes] = []
        self._filters: list[BlockedBloom] = []
        self.saturated = False

    @property
    def sorted_mids(self) -> int:
        """Hashes held in sorted arrays."""
        return sum(len(run) for run in self._runs)

    @property
    def filtered_mids(self) -> int:
        """Hashes held in filters."""
        return sum(one.held for one in self._filters)

    @property
    def held_bytes(self) -> int:
        """Memory held."""
        return self.sorted_mids * _BYTES_A_HASH + sum(one.size_bytes for one in self._filters)

    def add(self, hashes: Hashes) -> None:
        """Add hashes, in any order."""
        if self.saturated or len(hashes) == 0:
            return
        self._runs.append(np.sort(hashes))
        while len(self._runs) > 1 and len(self._runs[-2]) < _MERGE_RATIO * len(self._runs[-1]):
            last = self._runs.pop()
            # A stable sort of two sorted halves is a merge (numpy's radix/timsort sees the runs).
            self._runs[-1] = np.sort(np.concatenate((self._runs[-1], last)), kind="stable")
        while self.sorted_mids * _BYTES_A_HASH > self._sorted_bytes and not self.saturated:
            self._filter(self._runs.pop(0))

    def _filter(self, run: Hashes) -> None:
        """Move a run into filters."""
        while len(run):
            room = self._room()
            if not room:
                self._runs, self._filters, self.saturated = [], [], True
                return
            self._filters[-1].add(run[:room])
            run = run[room:]

    def _room(self) -> int:
        """Return how many hashes go into the last filter, making one if there is no room or none; 0: none do."""
        if self._filters:
            last = self._filters[-1]
            room = last.size_bytes * 8 // _FILTER_BITS - last.held
            if room > 0:
                return room
        left = self._filter_bytes - sum(one.size_bytes for one in self._filters)
        least = self._least_filter_bytes
        wanted = 2 * self._filters[-1].size_bytes if self._filters else self._first_filter_bytes
        # A remainder that would be a small filter is part of the one before it.
        size = left if left < wanted + 2 * least else wanted
        if left >= least:
            self._filters.append(BlockedBloom(size))
            return max(self._filters[-1].size_bytes * 8 // _FILTER_BITS, 1)
        if not self._filters:
            return 0
        last = self._filters[-1]
        return max(last.size_bytes * 8 // _LEAST_FILTER_BITS - last.held, 0)

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
        for one in self._filters:
            hit |= one.maybe(query)
        found[order] = hit
        return found
