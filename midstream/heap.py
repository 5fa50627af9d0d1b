"""How a process that serves keeps its memory: habits of the allocator and the garbage collector, set once at its start.

Both defaults are for programs that grow and shrink. A server that takes bodies and makes record batches of them frees
hundreds of kilobytes many times a second, and takes as much again the moment after.
"""

from __future__ import annotations

import ctypes
import gc

from midstream.settings import MIB

# Of <malloc.h>, glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_KEPT_BYTES = 32 * MIB
_LARGE_BYTES = 16 * MIB  # larger than any body or record batch; at most 32 MiB


def settle_heap() -> None:
    """Call this once, when all is imported."""
    _keep_freed_memory()
    # What passes through is freed by counting references. What the collector would walk through again and again is
    # what has been imported: so that is left out, and young objects are looked at rarely.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _keep_freed_memory() -> None:
    """Keep up to 32 MiB that were freed, where glibc gives anything larger than some 100 KiB back to the kernel at
    once, which then has to clear every page that is asked for again."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library: it has its own habits
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
