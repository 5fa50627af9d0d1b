"""Lines as ClickHouse sends them, cut where one hour's end and the next one's begin. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from serve.exhaust.days.builder.errors import BuildError


class LineStream:
    """Lines in chunks of any size, taken so many at a time."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def take(self, lines: int) -> Iterator[bytes]:
        """Yield the bytes of the next ``lines`` lines.

        Raises:
            BuildError: there are fewer, or the last has no end.
        """
        while lines:
            chunk = self._rest or next(self._chunks, b"")
            self._rest = b""
            if not chunk:
                raise BuildError(f"{lines} events fewer came than ClickHouse had counted")
            found = chunk.count(b"\n")
            if found >= lines:
                end = _after(chunk, lines)
                chunk, self._rest = chunk[:end], chunk[end:]
                found = lines
            lines -= found
            yield chunk

    def finish(self) -> None:
        """Check that no line is left.

        Raises:
            BuildError: there is.
        """
        if self._rest or next(self._chunks, b""):
            raise BuildError("more events came than ClickHouse had counted")


def _after(chunk: bytes, lines: int) -> int:
    """Return where the first ``lines`` lines of a chunk end."""
    end = 0
    for _ in range(lines):
        end = chunk.index(b"\n", end) + 1
    return end


def counted(chunks: Iterable[bytes], events: int, what: str) -> Iterator[bytes]:
    """Yield chunks, which must hold ``events`` lines together.

    Raises:
        BuildError: they hold others; nothing may be taken for whole then.
    """
    lines = 0
    last = b""
    for chunk in chunks:
        if chunk:
            lines += chunk.count(b"\n")
            last = chunk
            yield chunk
    if lines != events or (last and not last.endswith(b"\n")):
        raise BuildError(f"{what} gave {lines} lines for the {events} events that ClickHouse had counted")
