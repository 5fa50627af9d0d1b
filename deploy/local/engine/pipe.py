"""A SELECT's rows, between the engine's thread, which writes and waits, and the event loop, which the client paces."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os

READ_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20


class Pipe:
    """A pipe whose reading end is asynchronous.

    The engine opens :attr:`path` by itself; the end of the rows is there when that and ``write_fd`` are closed. Whoever
    runs the query closes ``write_fd``, so that no end is seen before the query's outcome is known.
    """

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux; elsewhere the default size serves
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    @property
    def path(self) -> str:
        """The writing end as a file's name."""
        return f"/dev/fd/{self.write_fd}"

    async def read(self) -> bytes:
        """The next bytes, up to 256 KiB; b"" at the end.

        Raises:
            Exception: what :meth:`abort` was given.
        """
        while True:
            if self._error is not None:
                raise self._error
            try:
                return os.read(self._read_fd, READ_BYTES)
            except BlockingIOError:
                await self._readable()

    async def _readable(self) -> None:
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._read_fd, self._wake)
        try:
            await self._waiter
        finally:
            self._loop.remove_reader(self._read_fd)
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def abort(self, error: Exception) -> None:
        """Let the reader's next or present read raise ``error``."""
        self._error = error
        self._wake()

    def close(self) -> None:
        """Close the reading end; a writer that is blocked goes on."""
        os.close(self._read_fd)
