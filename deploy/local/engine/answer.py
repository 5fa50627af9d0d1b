"""Answers as ClickHouse gives them: headers, whole or streamed, and errors before and after the first byte."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import Future

import orjson
from starlette.types import Message, Send

from deploy.local.engine.codecs import Compressor, compressor
from deploy.local.engine.database import Outcome, Task
from deploy.local.engine.errors import ClientGoneError, QueryError
from deploy.local.engine.pipe import Pipe

FIRST_BYTES = 64 << 10
"""An answer up to here is sent whole, with its summary; a larger one is streamed."""
WAIT_BYTES = 4 << 20
"""The same with ``wait_end_of_query``."""
STALL_S = 60.0
"""Longest wait for a client to take what it asked for."""
_COMPRESS_FROM_BYTES = 1 << 10
_THREAD_FROM_BYTES = 32 << 10
_BREAK_AFTER_S = 0.1  # aiohttp drops what it has not handed on when the connection breaks: the error, here

_TEXT = "text/plain; charset=UTF-8"
_CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "TSVWithNames": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNamesAndTypes": "text/tab-separated-values; charset=UTF-8",
    "TSVWithNamesAndTypes": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONLines": "application/x-ndjson; charset=UTF-8",
    "Pretty": _TEXT,
    "PrettyCompact": _TEXT,
    "Vertical": _TEXT,
    "XML": "application/xml; charset=UTF-8",
    "ArrowStream": "application/vnd.apache.arrow.stream",
    "Arrow": "application/vnd.apache.arrow.file",
    "Parquet": "application/vnd.apache.parquet",
}

Headers = list[tuple[bytes, bytes]]


class Answer:
    """The answer to one query."""

    def __init__(self, send: Send, query_id: str) -> None:
        self._send = send
        self._tag = ""
        self.headers: Headers = [
            (b"x-clickhouse-query-id", query_id.encode()),
            (b"x-clickhouse-server-display-name", b"midstream"),
            (b"x-clickhouse-timezone", b"UTC"),
        ]

    async def whole(self, body: bytes, outcome: Outcome, form: str, codec: str) -> None:
        """Answer 200 with all of ``body``."""
        headers = [*self.headers, (b"x-clickhouse-summary", _summary(outcome))]
        if body:
            headers += _format_headers(form)
            if codec and len(body) >= _COMPRESS_FROM_BYTES:
                squeezer = compressor(codec)
                body = await _compress(squeezer, body) + squeezer.flush()
                headers.append((b"content-encoding", codec.encode()))
        else:
            headers.append((b"content-type", _TEXT.encode()))
        await self._start(200, [*headers, (b"content-length", str(len(body)).encode())])
        await self._body(body, more=False)

    async def error(self, error: QueryError) -> None:
        """Answer with an error; nothing was sent before."""
        body = error.text.encode()
        headers = [
            *self.headers,
            (b"x-clickhouse-exception-code", str(error.code).encode()),
            (b"content-type", _TEXT.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        if error.status == 503:
            headers.append((b"retry-after", b"1"))
        await self._start(error.status, headers)
        await self._body(body, more=False)

    async def rows(self, pipe: Pipe, running: Future[Outcome], task: Task, *, wait: bool, codec: str) -> None:
        """Answer with what comes out of a pipe.

        Raises:
            ClientGoneError: the client left or stopped reading.
            QueryError: the query failed; nothing was sent before.
        """
        first = bytearray()
        limit = WAIT_BYTES if wait else FIRST_BYTES
        while len(first) < limit and (piece := await pipe.read()):
            first += piece
        if len(first) < limit:
            outcome = await asyncio.shield(asyncio.wrap_future(running))
            await self.whole(outcome.body or bytes(first), outcome, task.format, codec)
            return
        await self._stream(bytes(first), pipe, running, task, codec)

    async def _stream(self, first: bytes, pipe: Pipe, running: Future[Outcome], task: Task, codec: str) -> None:
        squeezer = compressor(codec) if codec else None
        self._tag = secrets.token_hex(8)
        headers = [*self.headers, *_format_headers(task.format), (b"x-clickhouse-exception-tag", self._tag.encode())]
        if codec:
            headers.append((b"content-encoding", codec.encode()))
        await self._start(200, headers)
        piece = first
        while piece:
            await self._body(await _compress(squeezer, piece) if squeezer else piece, more=True)
            piece = await pipe.read()
        try:
            await asyncio.shield(asyncio.wrap_future(running))
        except QueryError as error:
            # As ClickHouse since 25.11: the error in a marked block, and no end of the chunked body, so that a client
            # that does not look for the mark sees a broken answer, never a short one that looks whole.
            block = self._error_block(error)
            await self._body(squeezer.compress(block) + squeezer.flush() if squeezer else block, more=True)
            await asyncio.sleep(_BREAK_AFTER_S)
            raise
        await self._body(squeezer.flush() if squeezer else b"", more=False)

    @property
    def streaming(self) -> bool:
        """Whether a part of the rows was sent."""
        return bool(self._tag)

    def _error_block(self, error: QueryError) -> bytes:
        text = error.text.encode()
        tag = self._tag.encode()
        return b"__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag, text, len(text), tag)

    async def _start(self, status: int, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _body(self, body: bytes, *, more: bool) -> None:
        if more and not body:
            return  # a compressor that keeps its input for later
        message: Message = {"type": "http.response.body", "body": body, "more_body": more}
        try:
            await asyncio.wait_for(self._send(message), STALL_S)
        except TimeoutError:
            raise ClientGoneError from None


async def _compress(squeezer: Compressor, data: bytes) -> bytes:
    """Compress, in a thread where it would hold up the event loop."""
    if len(data) < _THREAD_FROM_BYTES:
        return squeezer.compress(data)
    return await asyncio.to_thread(squeezer.compress, data)


def _format_headers(form: str) -> Headers:
    content_type = _CONTENT_TYPES.get(form, "application/octet-stream")
    return [(b"content-type", content_type.encode()), (b"x-clickhouse-format", form.encode())]


def _summary(outcome: Outcome) -> bytes:
    return orjson.dumps(
        {
            "read_rows": str(outcome.read_rows),
            "read_bytes": str(outcome.read_bytes),
            "written_rows": str(outcome.written_rows),
            "written_bytes": str(outcome.written_bytes),
            "total_rows_to_read": "0",
            "result_rows": str(outcome.result_rows),
            "result_bytes": str(outcome.result_bytes),
            "elapsed_ns": str(outcome.elapsed_ns),
        }
    )
