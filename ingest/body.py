"""Reading a request's body: bounded in size, in time and in what all requests hold together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ingest.limits import BytesInFlight
from ingest.replies import ErrorCode, RefusedError
from midstream.deadlines import Deadlines, Limit

Receive = Callable[[], Awaitable[dict[str, Any]]]


class ClientGoneError(Exception):
    """The client went away before its body was there; nobody waits for a reply."""


class Hold:
    """The bytes one request holds; given back once, by whoever lets go of the body last."""

    __slots__ = ("_holders", "_in_flight", "_size", "_then")

    def __init__(self, in_flight: BytesInFlight) -> None:
        self._in_flight = in_flight
        self._size = 0
        self._holders = 1
        self._then: Callable[[], None] | None = None

    def grow(self, size: int) -> None:
        """Hold ``size`` bytes more.

        Raises:
            RefusedError: 503, the collector is full.
        """
        if not self._in_flight.reserve(size):
            raise RefusedError(ErrorCode.OVERLOADED)
        self._size += size

    def share(self) -> None:
        """Have one holder more: the bytes are given back once all have released them."""
        self._holders += 1

    def then(self, call: Callable[[], None]) -> None:
        """Call this too when all have released."""
        self._then = call

    def release(self) -> None:
        """Be a holder no longer."""
        self._holders -= 1
        if self._holders:
            return
        if self._size:
            self._in_flight.release(self._size)
            self._size = 0
        if self._then is not None:
            self._then()


async def read_body(receive: Receive, hold: Hold, announced: int | None, max_bytes: int, deadlines: Deadlines) -> bytes:
    """Return the whole body.

    Args:
        receive: the ASGI channel.
        hold: holds the bytes as they arrive.
        announced: ``Content-Length``, None when there is none.
        max_bytes: largest body as sent.
        deadlines: bound the wait for the whole of it.

    Raises:
        RefusedError: 408, 413 or 503.
        ClientGoneError: the client disconnected.
    """
    if announced is not None and announced > max_bytes:
        raise RefusedError(ErrorCode.BODY_TOO_LARGE)
    chunks: list[bytes] = []
    size = 0
    try:
        with Limit(deadlines):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                chunk: bytes = message.get("body", b"")
                if chunk:
                    size += len(chunk)
                    if size > max_bytes:
                        raise RefusedError(ErrorCode.BODY_TOO_LARGE)
                    hold.grow(len(chunk))
                    chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise RefusedError(ErrorCode.BODY_TIMEOUT) from None
