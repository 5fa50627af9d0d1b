"""Keeps the memory of a worker near what it holds: blocks come and go by tens of megabytes, in several threads."""

from __future__ import annotations

import ctypes
import gc

import pyarrow as pa

from midstream.logs import get_logger

log = get_logger(__name__)

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_ALLOCATOR = "jemalloc"
_KEPT_MS = 1_000
_MMAP_FROM_BYTES = 2 * 1024 * 1024
_TRIM_FROM_BYTES = 16 * 1024 * 1024
_ARENAS = 2


def give_back_what_is_freed() -> bool:
    """Let memory go back to the system when it is not used any more; return whether all can be told so.

    To touch a fresh page for the first time costs more than to fill it, on a virtual machine most of all. So blocks on
    their way should find the pages of the blocks before them, and only what nobody wants for a second should go.
    Arrow's jemalloc does that. Arrow's default keeps the pages of each thread for ever, and with it a store worker held
    twice what it needed. glibc, from which Python has its large values, keeps what is free at the end of its heap, up
    to a bound, and raises with each large value that is freed the size up to which it does so.
    """
    has_allocator = _ALLOCATOR in pa.supported_memory_backends()
    if has_allocator:
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(_KEPT_MS)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        log.info("memory.not_tuned")
        return False
    wanted = {
        _M_MMAP_THRESHOLD: _MMAP_FROM_BYTES,
        _M_TRIM_THRESHOLD: _TRIM_FROM_BYTES,
        _M_ARENA_MAX: _ARENAS,
    }
    return all(mallopt(name, value) for name, value in wanted.items()) and has_allocator


def leave_out_what_is_imported() -> None:
    """Have the collector of cycles pass over what there is by now, and look at young objects rarely.

    Events are trees without cycles, freed by counting references. What the collector would walk through again and again
    is what has been imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)
