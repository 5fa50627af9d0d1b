"""The archive of several days as it goes out: while its days are being built, or any part of it once they are there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from midstream.exhaust.manifest import Contents, DayFacts, short_days
from midstream.exhaust.names import day_name
from midstream.exhaust.outer import Entry, Framer, Layout, Slice, descriptor, header, trailer
from serve.exhaust.asked import Asked
from serve.exhaust.days.follow import Days, Following
from serve.exhaust.days.shelf import Built

_PIECE_BYTES = 1 << 19
_MAX_PIECES = 64


async def all_built(days: Days, asked: Asked) -> list[Built] | None:
    """Return the files of all days; None when one of them is not there."""
    found = []
    for job in asked.jobs:
        built = await days.built(job)
        if built is None:
            return None
        found.append(built)
    return found


def comment_of(asked: Asked, facts: Sequence[DayFacts]) -> bytes:
    """Return the comment of the archive, by which it can be verified with nothing else at hand."""
    return Contents(
        asked.dataset.name,
        asked.resource,
        asked.period.first,
        asked.period.last,
        asked.variant.format,
        short_days(facts),
        asked.dataset.columns,
    ).as_comment()


def _entry(facts: DayFacts) -> Entry:
    return Entry(day_name(facts.date), facts.date, facts.bytes, facts.crc32)


class Finished:
    """An archive whose days are all there. Their files are held open: what is removed meanwhile is read to its end."""

    def __init__(self, asked: Asked, built: Sequence[Built]) -> None:
        self._built = built
        facts = [one.facts for one in built]
        self._layout = Layout([_entry(one) for one in facts], comment_of(asked, facts))

    @property
    def total_bytes(self) -> int:
        """Of the archive."""
        return self._layout.total_bytes

    async def read(self, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Yield the bytes ``start`` to ``stop`` (exclusive)."""
        held: list[bytes | Slice] = []
        size = 0
        with _OpenFiles(self._built) as files:
            for piece in self._layout.pieces(start, stop):
                held.append(piece)
                size += piece.stop - piece.start if isinstance(piece, Slice) else len(piece)
                if size >= _PIECE_BYTES or len(held) >= _MAX_PIECES:
                    yield await asyncio.to_thread(files.read, held)
                    held, size = [], 0
            if held:
                yield await asyncio.to_thread(files.read, held)


class _OpenFiles:
    """Days' files, opened as they are needed; one at a time is open."""

    def __init__(self, built: Sequence[Built]) -> None:
        self._built = built
        self._entry = -1
        self._descriptor = -1

    def __enter__(self) -> _OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, pieces: Sequence[bytes | Slice]) -> bytes:
        return b"".join(piece if isinstance(piece, bytes) else self._slice(piece) for piece in pieces)

    def _slice(self, piece: Slice) -> bytes:
        if piece.entry != self._entry:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            self._descriptor = os.open(self._built[piece.entry].path, os.O_RDONLY | os.O_CLOEXEC)
            self._entry = piece.entry
        data = os.pread(self._descriptor, piece.stop - piece.start, piece.start)
        if len(data) != piece.stop - piece.start:
            raise OSError(f"{self._built[piece.entry].path} is shorter than its facts say")
        return data


class Growing:
    """An archive whose days are built as it goes out, one after the other."""

    def __init__(self, days: Days, asked: Asked, first: Following) -> None:
        self._days = days
        self._asked = asked
        self._first = first

    async def read(self) -> AsyncGenerator[bytes]:
        """Yield the whole archive.

        Raises:
            NotBuiltError: a day could not be built; what was yielded is no archive.
        """
        facts: list[DayFacts] = []
        for number, job in enumerate(self._asked.jobs):
            yield header(day_name(job.day), job.day)
            framer = Framer()
            async with AsyncExitStack() as stack:
                following = self._first if number == 0 else await stack.enter_async_context(self._days.follow(job))
                async for chunk in following.chunks():
                    if framed := framer.feed(chunk):
                        yield framed
                facts.append(await following.facts())
            yield framer.finish() + descriptor(facts[-1].crc32, facts[-1].bytes)
        yield trailer([_entry(one) for one in facts], comment_of(self._asked, facts))


@asynccontextmanager
async def growing(days: Days, asked: Asked, within_s: float) -> AsyncIterator[Growing]:
    """Begin an archive whose days are not all there; wait a moment for what its first day may fail of.

    Raises:
        NotBuiltError: the first day cannot be built.
    """
    async with days.follow(asked.jobs[0]) as first:
        await first.begun(within_s)
        yield Growing(days, asked, first)
