"""A download on its way to a client: paced by it, ended with it, and broken off rather than ended short."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from midstream.logs import get_logger
from serve.exhaust.days.follow import NotBuiltError

_log = get_logger(__name__)

STALL_S = 120.0
"""Longest wait for a client to take what it asked for."""


class Sent:
    """How far a download has come."""

    def __init__(self) -> None:
        self.bytes = 0
        self.whole = False
        self.began = time.monotonic()
        self.first_byte_s: float | None = None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began


class Download(Response):
    """Sends what ``chunks`` yields; ``held`` is closed at the end, whatever it is."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes],
        held: AsyncExitStack,
        sent: Sent,
        stopping: asyncio.Event,
        ended: Callable[[Sent], None],
        *,
        status_code: int,
        headers: dict[str, str],
        stall_s: float = STALL_S,
    ) -> None:
        self.status_code = status_code
        self.background = None
        self.body_iterator = chunks
        self._held = held
        self._sent = sent
        self._stopping = stopping
        self._ended = ended
        self._stall_s = stall_s
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. When it returns before the last byte, the server breaks the connection, so that the client can
        tell."""
        try:
            await self._send_all(receive, send)
        finally:
            await self._held.aclose()
            self._ended(self._sent)

    async def _send_all(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send), name="download")
        others = [
            asyncio.create_task(_gone(receive), name="download-gone"),
            asyncio.create_task(self._stopping.wait(), name="download-stop"),
        ]
        try:
            await asyncio.wait((sending, *others), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, *others):
                task.cancel()
            await asyncio.gather(sending, *others, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            if not isinstance(error, NotBuiltError | TimeoutError | OSError):
                raise error
            _log.warning("exhaust.download_broken", error=f"{type(error).__name__}: {error}", bytes=self._sent.bytes)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.body_iterator) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(self._stall_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if self._sent.first_byte_s is None:
                    self._sent.first_byte_s = self._sent.seconds
                self._sent.bytes += len(chunk)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._sent.whole = True


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def client_of(request: Request) -> str:
    """Return the address that a request came from."""
    return request.client.host if request.client is not None else ""
