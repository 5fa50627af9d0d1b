"""Files that come over HTTP: written as they come, bounded, kept whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from fastapi import Request
from starlette.requests import ClientDisconnect

from midstream.logs import get_logger
from midstream.registry.fleet.errors import FleetError
from serve.errors import ApiError

_log = get_logger(__name__)

_PIECE_BYTES = 1024 * 1024
_PART = ".part"
_LEFT_OVER_S = 24 * 3600
MAX_UPLOADS = 4
"""Files that one process writes into a folder at once."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that was kept."""

    id: str
    checksum: str
    """SHA-256, hex."""
    size_bytes: int


class Folder:
    """A folder of files by their ids, which all processes of the api share. Belongs to one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slots = asyncio.Semaphore(MAX_UPLOADS)

    def path_of(self, id_: str) -> Path:
        """Return where the file of an id is."""
        return self._path / id_

    @asynccontextmanager
    async def receive(self, request: Request, *, max_bytes: int, timeout_ms: int) -> AsyncIterator[Uploaded]:
        """Keep a request's body as a file; should the registry refuse it inside, it is gone again. When it is not known
        what became of it there, the file stays: a file too many does no harm.

        Raises:
            ApiError: 413 too large, 408 nothing came for ``timeout_ms``, 400 the client went away, 503 too many at
                once, or the disk failed.
        """
        if self._slots.locked():
            raise ApiError(503, "BUSY", "as many files as this process takes are under way; try again")
        async with self._slots:
            uploaded = await self._keep(request, max_bytes, timeout_ms)
            try:
                yield uploaded
            except FleetError:
                await asyncio.to_thread(self.remove, [uploaded.id])
                raise

    def remove(self, ids: list[str]) -> None:
        """Remove files; those that are gone already are no matter. Blocks."""
        for id_ in ids:
            try:
                self.path_of(id_).unlink(missing_ok=True)
            except OSError as error:
                _log.error("device_file.not_removed", path=str(self.path_of(id_)), error=str(error))

    async def _keep(self, request: Request, max_bytes: int, timeout_ms: int) -> Uploaded:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise _too_large(max_bytes)
        id_ = str(uuid4())
        part = self._path / f"{id_}{_PART}"
        try:
            file = await asyncio.to_thread(self._open, part)
            try:
                checksum, size = await _write(request, file, max_bytes, timeout_ms)
                await asyncio.to_thread(self._settle, file, part, self.path_of(id_))
            finally:
                file.close()
                part.unlink(missing_ok=True)
        except OSError as error:
            _log.error("device_file.not_kept", folder=str(self._path), error=f"{type(error).__name__}: {error}")
            raise ApiError(503, "DISK_FAILED", "the file cannot be kept now; try again") from None
        return Uploaded(id_, checksum, size)

    def _open(self, part: Path) -> BinaryIO:
        self._path.mkdir(parents=True, exist_ok=True)
        for left_over in self._path.glob(f"*{_PART}"):  # of processes that were killed
            try:
                if time.time() - left_over.stat().st_mtime > _LEFT_OVER_S:
                    left_over.unlink()
            except FileNotFoundError:
                continue
        return part.open("xb")

    def _settle(self, file: BinaryIO, part: Path, path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        part.rename(path)
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


async def _write(request: Request, file: BinaryIO, max_bytes: int, timeout_ms: int) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    piece = bytearray()

    def write(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise ApiError(408, "BODY_TIMEOUT", f"nothing of the body came for {timeout_ms} ms") from None
        except ClientDisconnect:
            raise ApiError(400, "CLIENT_GONE", "the client closed the connection before its body ended") from None
        if chunk is not None:
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            piece += chunk
        if chunk is None or len(piece) >= _PIECE_BYTES:
            await asyncio.to_thread(write, bytes(piece))
            piece.clear()
        if chunk is None:
            return digest.hexdigest(), size


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, "BODY_TOO_LARGE", f"the file is longer than {max_bytes} bytes")
