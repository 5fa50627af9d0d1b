"""Reading request bodies within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from midstream.inflate import InflatedTooLargeError, InflateError, inflate
from midstream.lines import GZIP_MARK, GzipError, Inflater, LineSplitter
from serve.errors import ApiError

_PIECE_BYTES = 64 * 1024  # what is taken up at once: some ms of work


async def read_body(request: Request, *, max_bytes: int, max_inflated_bytes: int, timeout_ms: int) -> bytes:
    """Return the whole body, inflated when it is gzip (its first two bytes tell, whatever the header says).

    Raises:
        ApiError: 413 too large, 408 too slow, 415 another encoding, 400 broken gzip or the client went away.
    """
    _check_encoding(request)
    return _inflate(await read_raw(request, max_bytes=max_bytes, timeout_ms=timeout_ms), max_inflated_bytes)


async def read_raw(request: Request, *, max_bytes: int, timeout_ms: int) -> bytes:
    """Return the whole body as it was sent.

    Raises:
        ApiError: 413 too large, 408 too slow, 400 the client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                parts.append(chunk)
    except TimeoutError:
        raise ApiError(408, "BODY_TIMEOUT", f"the body did not come within {timeout_ms} ms") from None
    except ClientDisconnect:
        raise _gone() from None
    return b"".join(parts)


async def body_lines(request: Request, *, max_line_bytes: int, timeout_ms: int) -> AsyncIterator[list[bytes | None]]:
    """Yield the body's lines as they come, some at a time; None stands for one that is too long.

    Holds no more than a line and a piece of 64 KiB, whatever the body's length. Gzip is inflated.

    Raises:
        ApiError: 408 nothing came for ``timeout_ms``, 415 another encoding, 400 broken gzip or the client went
            away.
    """
    _check_encoding(request)
    splitter = LineSplitter(max_line_bytes)
    inflater: Inflater | None = None
    begun = False
    head = b""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise ApiError(408, "BODY_TIMEOUT", f"nothing of the body came for {timeout_ms} ms") from None
        except ClientDisconnect:
            raise _gone() from None
        if not begun:
            head += chunk or b""
            if chunk is not None and len(head) < len(GZIP_MARK):
                continue
            begun = True
            inflater = Inflater(_PIECE_BYTES) if head[:2] == GZIP_MARK else None
            pieces = _pieces(inflater, head)
        else:
            pieces = _pieces(inflater, chunk or b"")
        try:
            for piece in pieces:
                yield splitter.feed(piece)
            if chunk is None:
                if inflater is not None:
                    inflater.finish()
                yield splitter.finish()
                return
        except GzipError as error:
            raise ApiError(400, "INVALID_GZIP", str(error)) from None


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise ApiError(415, "UNSUPPORTED_ENCODING", "the body may be gzip or plain")


def _pieces(inflater: Inflater | None, data: bytes) -> Iterator[bytes]:
    if inflater is not None:
        yield from inflater.feed(data)
    else:
        for start in range(0, len(data), _PIECE_BYTES):
            yield data[start : start + _PIECE_BYTES]


def _inflate(body: bytes, max_bytes: int) -> bytes:
    try:
        return inflate(body, max_bytes)
    except InflatedTooLargeError as error:
        raise ApiError(413, "BODY_TOO_LARGE", str(error)) from None
    except InflateError as error:
        raise ApiError(400, "INVALID_GZIP", str(error)) from None


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, "BODY_TOO_LARGE", f"the body is longer than {max_bytes} bytes")


def _gone() -> ApiError:
    return ApiError(400, "CLIENT_GONE", "the client closed the connection before its body ended")
