"""A Bloom filter of 64-bit hashes that answers for a whole block at once.

Each hash has all its bits in one word, so that a look-up is one access to memory (Putze, Sanders and Singler, "Cache-,
Hash- and Space-Efficient Bloom Filters", 2009). Libraries ask hash by hash, which costs a microsecond each; this takes
some ten nanoseconds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_WORD_BYTES = 8
_CHUNK = 1 << 18
"""Hashes worked on at once: what is in between stays in the cache."""
_BITS = 5
"""Bits a hash sets: best at some ten bits of filter a hash."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_PLACE = np.uint64(63)
_ONE = np.uint64(1)
_HALF = np.uint64(32)


class BlockedBloom:
    """A set of hashes that only grows, of a fixed size; the fuller it is, the more often it is wrong.

    With 16 bits a hash it takes one stranger in 230 for one of its own, with 8 one in 29, with 4 one in 5. It knows
    each of its own.
    """

    def __init__(self, size_bytes: int) -> None:
        """``size_bytes`` is rounded down to whole words; at least one."""
        self._words = np.zeros(max(size_bytes // _WORD_BYTES, 1), dtype=np.uint64)
        self.held = 0
        """Hashes added."""

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return int(self._words.nbytes)

    def add(self, hashes: Hashes) -> None:
        """Add hashes, in any order."""
        for start in range(0, len(hashes), _CHUNK):
            some = np.sort(_turned(hashes[start : start + _CHUNK]))
            places = self._places(some)  # ascending too
            firsts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
            self._words[places[firsts]] |= np.bitwise_or.reduceat(_masks(some), firsts)
        self.held += len(hashes)

    def maybe(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Tell for each hash whether it may have been added; False is certain."""
        turned = _turned(hashes)
        masks = _masks(turned)
        found: npt.NDArray[np.bool_] = (self._words[self._places(turned)] & masks) == masks
        return found

    def _places(self, turned: Hashes) -> Hashes:
        """Return each hash's word: by its upper half, so that the order stays."""
        return ((turned >> _HALF) * np.uint64(len(self._words))) >> _HALF


def _turned(hashes: Hashes) -> Hashes:
    """Return the hashes with their halves exchanged.

    ClickHouse sends them in ascending order. What is in one filter may therefore be a part of their range, and would
    lie densely in a part of the filter if their upper halves chose the words.
    """
    return (hashes << _HALF) | (hashes >> _HALF)


def _masks(turned: Hashes) -> Hashes:
    """Return the bits of each hash in its word. From all of the hash: a worker's all have the same remainder."""
    mixed = turned * _ODD
    masks = np.zeros(len(turned), dtype=np.uint64)
    for bit in range(_BITS):
        masks |= _ONE << ((mixed >> np.uint64(58 - 6 * bit)) & _PLACE)
    return masks
