"""Compression over HTTP: Content-Encoding of requests, Accept-Encoding of answers. Frames may follow one another."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import lz4.frame
from backports import zstd

from deploy.local.engine.errors import CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION_METHOD, refused

CHUNK_BYTES = 1 << 20


class Compressor(Protocol):
    """One answer's compressor."""

    def compress(self, data: bytes) -> bytes:
        """What ``data`` adds to the output."""

    def flush(self) -> bytes:
        """The end of the output."""


class _Lz4Compressor:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        head = b"" if self._begun else self._frame.begin()
        self._begun = True
        return bytes(head + self._frame.compress(data))

    def flush(self) -> bytes:
        head = b"" if self._begun else self._frame.begin()
        return bytes(head + self._frame.flush())


# In the order of preference: what costs least first; these are loopback connections.
_COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "lz4": _Lz4Compressor,
    "zstd": lambda: zstd.ZstdCompressor(level=1),
    "gzip": lambda: zlib.compressobj(level=1, wbits=31),
    "deflate": lambda: zlib.compressobj(level=1, wbits=15),
}


def choose(accept_encoding: str) -> str:
    """The codec of an answer, "" for none. ``q`` weights other than 0 are not compared."""
    offered = set()
    for item in accept_encoding.lower().split(","):
        name, _, weight = item.partition(";")
        if weight.strip() not in ("q=0", "q=0.0"):
            offered.add(name.strip())
    return next((name for name in _COMPRESSORS if name in offered), "")


def compressor(codec: str) -> Compressor:
    """A new compressor of a codec that :func:`choose` returned."""
    return _COMPRESSORS[codec]()


class _ZlibDecompressor:
    """zlib with the interface of the others: input that was not used yet is kept inside."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits=wbits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


# All with bz2's interface: decompress(data, max_length), eof, unused_data.
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: _ZlibDecompressor(31),
    "deflate": lambda: _ZlibDecompressor(15),
}


def check_content_encoding(codec: str) -> None:
    """Refuse a Content-Encoding that is not spoken here.

    Raises:
        QueryError: code 89, with what is.
    """
    if codec and codec not in _DECOMPRESSORS:
        raise refused(
            UNKNOWN_COMPRESSION_METHOD,
            f"Unknown Content-Encoding {codec[:40]!r}; the local engine reads {', '.join(_DECOMPRESSORS)}.",
        )


def inflate(codec: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress a body, in pieces of at most 1 MiB however far it inflates.

    Raises:
        QueryError: code 271, the body is not of this codec or ends early.
    """
    begun: Any = None
    try:
        for chunk in chunks:
            data = chunk
            while True:
                if begun is None:
                    if not data:
                        break
                    begun = _DECOMPRESSORS[codec]()
                piece = begun.decompress(data, CHUNK_BYTES)
                data = b""
                if piece:
                    yield piece
                if begun.eof:
                    data, begun = begun.unused_data, None
                elif len(piece) < CHUNK_BYTES:
                    break
    except (zlib.error, zstd.ZstdError, RuntimeError, EOFError) as error:
        raise refused(CANNOT_DECOMPRESS, f"The body is not {codec}: {error}.") from None
    if begun is not None:
        raise refused(CANNOT_DECOMPRESS, f"The {codec} body ends before its end.")
