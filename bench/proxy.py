"""A TCP proxy that breaks connections on purpose: cut, still in one direction or both, or with the answer lost.

It can also be slow without a fault: what is behind it then takes as long as a server far away.
"""

from __future__ import annotations

import asyncio
import enum
import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

_CHUNK_BYTES = 256 * 1024
_START_S = 10.0


class Fault(enum.Enum):
    """What a proxy does to connections, those that are open and those that come."""

    NONE = "none"
    CUT = "cut"
    """Reset them."""
    STILL = "still"
    """Let nothing through in either direction, and end nothing. As with a network that is back, what waited comes
    through once the fault is over."""
    STILL_REQUESTS = "still_requests"
    """Let nothing through to the server; the other direction works."""
    STILL_ANSWERS = "still_answers"
    """Let nothing through to the client; the other direction works."""
    ANSWER_LOST = "answer_lost"
    """Let what is asked through, swallow the answer, then reset the connection: done, and nobody told."""
    ERROR = "error"
    """HTTP only: answer every request with an error; half of them are carried out all the same."""


class Proxy:
    """Forwards a port to another of 127.0.0.1. Runs in a thread of its own; as a context manager it leaves nothing."""

    def __init__(
        self,
        port: int,
        target: int,
        *,
        error: bytes = b"",
        seed: int = 0,
        insert_s: float = 0.0,
        bytes_per_s: float = 0.0,
    ) -> None:
        """Make one that is not started yet.

        Args:
            port: where it listens.
            target: the port that it forwards to.
            error: the HTTP answer of :attr:`Fault.ERROR`.
            seed: of what it draws.
            insert_s: how much later the answer to each insert over ClickHouse's HTTP interface comes.
            bytes_per_s: bound of what all clients together send through it; 0: none.
        """
        self.port = port
        self.insert_s = insert_s
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._target = target
        self._error = error
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._fault = Fault.NONE
        self._changed = asyncio.Event()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}", daemon=True)
        self.lost_answers = 0
        """Answers that were swallowed."""
        self.errors = 0
        """Errors that were answered."""
        self.errors_done = 0
        """Of these, the requests that were carried out all the same."""

    def __enter__(self) -> Proxy:
        self._thread.start()
        try:
            self._do(self._listen())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        self._loop.close()

    @property
    def fault(self) -> Fault:
        """The fault that is on."""
        return self._fault

    def set(self, fault: Fault) -> None:
        """Begin a fault, or end all with ``Fault.NONE``."""
        self._do(self._set(fault))

    def _do(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(_START_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_CHUNK_BYTES)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        if fault in (Fault.CUT, Fault.ERROR):  # ERROR: a request half read cannot be answered
            for link in list(self._links):
                link.abort()
        self._changed.set()
        self._changed = asyncio.Event()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: of its own ones asyncio tells in the log when they are cancelled.
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._fault is Fault.CUT:
                writer.transport.abort()
                return
            if self._fault is Fault.ERROR:
                await self._refuse(reader, writer)
                return
            link = _Link(self, reader, writer, *await asyncio.open_connection("127.0.0.1", self._target))
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # either side has gone, which is what connections do here
        finally:
            writer.transport.abort()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request with an error; every other one is carried out before."""
        request = await read_http(reader)
        if self._rng.random() < 0.5:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                server_writer.write(request)
                await read_http(server_reader)
                self.errors_done += 1
            finally:
                server_writer.transport.abort()
        self.errors += 1
        writer.write(self._error)
        await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def passable(self, *stopped_by: Fault) -> None:
        """Wait while one of these faults is on."""
        while self._fault in stopped_by:
            await self._changed.wait()

    async def room(self, sent_bytes: int) -> None:
        """Wait until the line has taken so many bytes more."""
        if self._bytes_per_s:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + sent_bytes / self._bytes_per_s
            await asyncio.sleep(self._free_at - now)


async def read_http(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP message with a length, chunked or without a body.

    Raises:
        EOFError: it ends before.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
            body += size + chunk
            if chunk == b"\r\n":
                return head + body
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


class _Link:
    """One connection from a client through the proxy."""

    def __init__(
        self,
        proxy: Proxy,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client = (client_reader, client_writer)
        self._server = (server_reader, server_writer)
        self._is_insert = False

    def abort(self) -> None:
        """Reset both sides."""
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def run(self) -> None:
        """Forward until either side has ended."""
        pumps = {
            asyncio.create_task(self._pump(self._client[0], self._server[1], self._requests)),
            asyncio.create_task(self._pump(self._server[0], self._client[1], self._answers)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            results = await asyncio.gather(*pumps, return_exceptions=True)
            self.abort()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, OSError | EOFError):
                raise result

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: Callable[[bytes], Awaitable[bool]]
    ) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if not await gate(chunk):
                return
            writer.write(chunk)
            await writer.drain()

    async def _requests(self, chunk: bytes) -> bool:
        # Every insert of ours has a token, and settings stand in a request's first line.
        if chunk.startswith(b"POST ") and b"insert_deduplication_token=" in chunk.partition(b"\r\n")[0]:
            self._is_insert = True
        await self._proxy.room(len(chunk))
        await self._proxy.passable(Fault.STILL, Fault.STILL_REQUESTS)
        return True

    async def _answers(self, _: bytes) -> bool:
        if self._is_insert:
            self._is_insert = False
            await asyncio.sleep(self._proxy.insert_s)
        await self._proxy.passable(Fault.STILL, Fault.STILL_ANSWERS)
        if self._proxy.fault is Fault.ANSWER_LOST:
            self._proxy.lost_answers += 1
            return False
        return True
