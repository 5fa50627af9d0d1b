"""Lines out of a body that comes in pieces, compressed or not, without ever holding the whole of it."""

from __future__ import annotations

from collections.abc import Iterator

from isal import isal_zlib

GZIP_MARK = b"\x1f\x8b"
_GZIP_WINDOW = 16 + 15  # zlib's way to say: a gzip header and trailer


class GzipError(ValueError):
    """The bytes are no complete gzip stream."""


class Inflater:
    """Inflates gzip as it comes, in pieces of at most ``piece_bytes``; members may follow each other."""

    def __init__(self, piece_bytes: int = 256 * 1024) -> None:
        self._piece_bytes = piece_bytes
        self._stream = isal_zlib.decompressobj(_GZIP_WINDOW)
        self._padding = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` inflates to; take all of it before feeding more.

        Raises:
            GzipError: the data is corrupt, or something else follows it.
        """
        while data:
            if self._stream.eof:
                data = self._next_member(data)
                continue
            try:
                piece = self._stream.decompress(data, self._piece_bytes)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub calls the class a value
                raise GzipError(f"the gzip stream is corrupt: {error}") from None
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        """Say that no data follows.

        Raises:
            GzipError: the stream is cut short.
        """
        if not self._stream.eof:
            raise GzipError("the gzip stream is cut short")

    def _next_member(self, data: bytes) -> bytes:
        if data[:1] == b"\0" or self._padding:  # zeros after the last member are padding, as gzip has it
            if data.strip(b"\0"):
                raise GzipError("the gzip stream is followed by something else")
            self._padding = True
            return b""
        if not GZIP_MARK.startswith(data[:2]):
            raise GzipError("the gzip stream is followed by something else")
        self._stream = isal_zlib.decompressobj(_GZIP_WINDOW)
        return data


class LineSplitter:
    """Splits a stream into lines at LF. A line of more than ``max_line_bytes`` becomes None: it is not held."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._first = True

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that ``data`` completes, without their ends."""
        *complete, rest = data.split(b"\n")
        lines: list[bytes | None] = []
        for line in complete:
            self._hold(line)
            lines.append(self._take())
        self._hold(rest)
        return lines

    def finish(self) -> list[bytes | None]:
        """Return the last line when it has no end."""
        return [self._take()] if self._held_bytes else []

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._held_bytes <= self._max_line_bytes:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _take(self) -> bytes | None:
        too_long = self._held_bytes > self._max_line_bytes
        line = b"".join(self._parts)
        self._parts.clear()
        self._held_bytes = 0
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")  # some editors begin a file with a byte order mark
        return None if too_long else line.removesuffix(b"\r")
