"""Gzip whose bytes depend on the text alone, not on how it came.

The text is cut into blocks of a fixed size, each compressed by itself and ended at a byte (RFC 1951: an empty stored
block), so that the blocks joined are one DEFLATE stream; around it is one gzip member (RFC 1952) without name or time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

LEVEL = 1
"""A quarter of the time of level 6, for a fifth more bytes."""
BLOCK_BYTES = 1 << 20
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # the fastest way, on an unknown system
_LAST_BLOCK = b"\x03\x00"


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a gzip file of what ``chunks`` hold."""
    yield _HEADER
    crc32 = size = 0
    for block in _blocks(chunks):
        crc32 = zlib.crc32(block, crc32)
        size += len(block)
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        yield deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)
    yield _LAST_BLOCK + struct.pack("<II", crc32, size & 0xFFFFFFFF)


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        start = 0
        while size + len(chunk) - start >= BLOCK_BYTES:
            end = start + BLOCK_BYTES - size
            yield b"".join([*held, chunk[start:end]])
            held, size, start = [], 0, end
        if start < len(chunk):
            held.append(chunk[start:])
            size += len(chunk) - start
    if held:
        yield b"".join(held)
