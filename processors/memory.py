"""Keeps the memory of a worker near what it holds: blocks come and go by tens of megabytes, in several threads."""

from __future__ import annotations

import ctypes

import pyarrow as pa

from midstream.logs import get_logger

log = get_logger(__name__)

# mallopt(3)
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MMAP_FROM_BYTES = 256 * 1024
_ARENAS = 2


def give_back_what_is_freed() -> bool:
    """Let large buffers go back to the system when they are freed; return whether the C library can be told so.

    Arrow's own allocator keeps the pages of each thread for its next block, and glibc raises, with each large buffer
    that is freed, the size up to which it keeps them in the arena of the thread. With both, a store worker held twice
    what it needed.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        log.info("memory.not_tuned")
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES) and mallopt(_M_ARENA_MAX, _ARENAS))
