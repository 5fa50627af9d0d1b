"""Inflating a body: what it is is read off its first two bytes, whatever its headers say.

The collector and ``validate`` use the same function, so a body that the one took the other can read.
"""

from __future__ import annotations

from isal import isal_zlib

_GZIP_MARK = b"\x1f\x8b"
_GZIP_WINDOW = 16 + 15  # zlib's way to say: a gzip header and trailer (RFC 1952)
_MAX_MEMBERS = 64  # each member copies what follows it, so very many tiny ones would cost quadratic time


class InflateError(ValueError):
    """The body is a gzip stream that is cut short or corrupt."""


class InflatedTooLargeError(InflateError):
    """The body is larger than the limit once inflated; no more than that was inflated to find out."""


def is_gzip(body: bytes) -> bool:
    """Whether a body is compressed."""
    return body[:2] == _GZIP_MARK


def inflate(body: bytes, max_bytes: int) -> bytes:
    """Return the inflated body, or the body itself when it is not compressed.

    Members may follow each other; what follows the last and is no member is passed over, as gzip itself does.

    Raises:
        InflatedTooLargeError: it is larger than ``max_bytes``, compressed or not.
        InflateError: it cannot be inflated.
    """
    if not is_gzip(body):
        if len(body) > max_bytes:
            raise InflatedTooLargeError(f"the body is larger than {max_bytes} bytes")
        return body
    parts: list[bytes] = []
    left = max_bytes
    rest = body
    for _ in range(_MAX_MEMBERS):
        stream = isal_zlib.decompressobj(_GZIP_WINDOW)
        try:
            part = stream.decompress(rest, left + 1)
        except isal_zlib.error as error:  # type: ignore[misc]  # isal ships no types
            raise InflateError(f"the gzip stream is corrupt: {error}") from None
        left -= len(part)
        if left < 0:
            raise InflatedTooLargeError(f"the body is larger than {max_bytes} bytes once inflated")
        if not stream.eof:
            raise InflateError("the gzip stream is cut short")
        parts.append(part)
        rest = stream.unused_data
        if not is_gzip(rest):
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise InflateError(f"the gzip stream has more than {_MAX_MEMBERS} members")
