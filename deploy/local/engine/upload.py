"""A request's body: received whole before anything runs, so that an aborted upload inserts nothing."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from starlette.types import Receive

from deploy.local.engine.codecs import CHUNK_BYTES, inflate
from deploy.local.engine.errors import LIMIT_EXCEEDED, ClientGoneError, refused

MEMORY_BYTES = 32 << 20
"""What of one body is held in memory, which a block of `store` fits into; more goes to a file."""
MAX_BYTES = 4 << 30
"""Largest body, as sent and inflated."""
IDLE_S = 60.0
"""Longest wait for a body's next bytes."""


class Upload:
    """Bytes in memory up to 32 MiB, in a file without a name in ``folder`` beyond.

    An INSERT's text can stand before its data. Kept apart from it, the data is a file by itself, which the engine reads
    where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Memory that has a path, so that the engine can open it: where the system has such files.
        self._in_memory = hasattr(os, "memfd_create")
        self._file: FileIO = (
            os.fdopen(os.memfd_create("upload"), "w+b", buffering=0) if self._in_memory else self._on_disk()
        )
        self._text = b""
        self.bytes = 0

    def _on_disk(self) -> FileIO:
        return tempfile.TemporaryFile(dir=self._folder, buffering=0)

    def begin(self, text: bytes) -> None:
        """Set how the body begins; that much is not in the file."""
        self._text = text
        self.bytes = len(text)

    def write(self, data: bytes | memoryview) -> None:
        """Append.

        Raises:
            QueryError: code 290, too large.
        """
        self.bytes += len(data)
        if self.bytes > MAX_BYTES:
            raise refused(LIMIT_EXCEEDED, f"The body is larger than {MAX_BYTES} bytes; split it into several inserts.")
        if self._in_memory and self.bytes > MEMORY_BYTES:
            self._leave_memory()
        self._put(data)

    def _put(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _leave_memory(self) -> None:
        held, self._file, self._in_memory = self._file, self._on_disk(), False
        with held:
            held.seek(0)
            while piece := held.read(CHUNK_BYTES):
                self._put(piece)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, in pieces of at most 1 MiB."""
        if start < len(self._text):
            yield self._text[start:]
        self._file.seek(max(0, start - len(self._text)))
        while piece := self._file.read(CHUNK_BYTES):
            yield piece

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes."""
        head = self._text[:size]
        position = 0
        while len(head) < size and (piece := os.pread(self._file.fileno(), size - len(head), position)):
            head += piece
            position += len(piece)
        return head

    @property
    def path(self) -> str:
        """A file of all that follows the text, until :meth:`close`."""
        return f"/dev/fd/{self._file.fileno()}"

    def path_from(self, start: int) -> str | None:
        """Return the path of a file of exactly the bytes from ``start`` on; None: there is none."""
        return self.path if start == len(self._text) else None

    def inflated(self, codec: str) -> Upload:
        """The decompressed body, whole: a truncated body fails here, before the engine saw a row. Closes this one.

        Raises:
            QueryError: the body is not of this codec, ends early, or is too large.
        """
        plain = Upload(self._folder)
        try:
            for piece in inflate(codec, self.chunks()):
                plain.write(piece)
        except BaseException:
            plain.close()
            raise
        finally:
            self.close()
        return plain

    def close(self) -> None:
        """Give the memory or the file back."""
        self._file.close()


async def receive_body(receive: Receive, folder: Path, text_bytes: Callable[[bytes], int]) -> Upload:
    """Receive a whole body.

    Args:
        receive: The request's messages.
        folder: Where what is too large for memory is kept.
        text_bytes: Tells of the body's first piece how much of it is an INSERT's text, before its data.

    Raises:
        ClientGoneError: the client left, or sent nothing for a minute.
        QueryError: the body is too large.
    """
    upload = Upload(folder)
    now = asyncio.get_running_loop().time
    # One limit for all messages, put off with each: wait_for() makes a task for every 64 KiB.
    limit = asyncio.timeout_at(now() + IDLE_S)
    try:
        async with limit:
            while True:
                message = await receive()
                limit.reschedule(now() + IDLE_S)
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                if body := message.get("body"):
                    end = 0 if upload.bytes else text_bytes(body)
                    if end:
                        upload.begin(body[:end])
                    upload.write(memoryview(body)[end:])
                if not message.get("more_body", False):
                    return upload
    except BaseException as error:
        upload.close()
        if isinstance(error, TimeoutError) and limit.expired():
            raise ClientGoneError from None
        raise
