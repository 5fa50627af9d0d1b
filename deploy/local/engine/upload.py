"""A request's body: received whole before anything runs, so that an aborted upload inserts nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from starlette.types import Receive

from deploy.local.engine.codecs import CHUNK_BYTES, inflate
from deploy.local.engine.errors import LIMIT_EXCEEDED, ClientGoneError, refused

MEMORY_BYTES = 4 << 20
"""What of one body is held in memory; more goes to a file."""
MAX_BYTES = 4 << 30
"""Largest body, as sent and inflated."""
IDLE_S = 60.0
"""Longest wait for a body's next bytes."""


class Upload:
    """Bytes in memory up to 4 MiB, in an unnamed file in ``folder`` beyond."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=str(folder))  # noqa: SIM115  closed by close()
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            QueryError: code 290, too large.
        """
        self.bytes += len(data)
        if self.bytes > MAX_BYTES:
            raise refused(LIMIT_EXCEEDED, f"The body is larger than {MAX_BYTES} bytes; split it into several inserts.")
        self._file.write(data)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, in pieces of at most 1 MiB."""
        self._file.seek(start)
        while piece := self._file.read(CHUNK_BYTES):
            yield piece

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes."""
        self._file.seek(0)
        return self._file.read(size)

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


async def receive_body(receive: Receive, folder: Path) -> Upload:
    """Receive a whole body.

    Raises:
        ClientGoneError: the client left, or sent nothing for a minute.
        QueryError: the body is too large.
    """
    upload = Upload(folder)
    try:
        while True:
            try:
                message = await asyncio.wait_for(receive(), IDLE_S)
            except TimeoutError:
                raise ClientGoneError from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if body := message.get("body"):
                upload.write(body)
            if not message.get("more_body", False):
                return upload
    except BaseException:
        upload.close()
        raise
