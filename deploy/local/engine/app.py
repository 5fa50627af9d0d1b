"""The ASGI application: routes, and one query from request to answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from functools import partial

from starlette.types import Receive, Scope, Send

from deploy.local.engine.answer import Answer
from deploy.local.engine.broken import BrokenParts
from deploy.local.engine.database import Database, Task
from deploy.local.engine.errors import NOT_IMPLEMENTED, ClientGoneError, QueryError, from_host, refused
from deploy.local.engine.pipe import Pipe
from deploy.local.engine.request import Query, check_source, read_query
from deploy.local.engine.statement import Kind, insert_text_bytes
from deploy.local.engine.upload import Upload, receive_body
from midstream.logs import get_logger

log = get_logger(__name__)


class EngineApp:
    """ClickHouse's HTTP interface over a :class:`Database`."""

    def __init__(self, database: Database, broken: BrokenParts) -> None:
        self._database = database
        self._broken = broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not spoken here")
        path: str = scope["path"]
        if path in ("/ping", "/replicas_status"):
            await _plain(send, 200, b"Ok.\n")
        elif path != "/":
            await _plain(send, 404, f"There is no handle {path}\n\nUse / or /ping for health checks.\n".encode())
        else:
            await self._serve_query(scope, receive, send)

    async def _serve_query(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = Answer(send, "")
        task = Task()
        try:
            check_source(headers)
            if scope["method"] not in ("GET", "POST"):
                raise refused(NOT_IMPLEMENTED, f"The method {scope['method']} is not implemented; use GET or POST.")
            query = read_query(scope["method"], scope["query_string"], headers)
            query_id = query.query_id or str(uuid.uuid4())
            answer = Answer(send, query_id)
            with self._database.admit():
                upload = await receive_body(receive, self._database.uploads, partial(_text_bytes, query))
                if not query.sql and not upload.bytes:
                    upload.close()
                    await _plain(send, 200, b"Ok.\n")
                    return
                await self._answer(query, upload, task, answer, receive)
        except ClientGoneError:
            log.info("query.client_gone", kind=task.kind.value, ms=_ms(started))
            return  # with an answer begun, the server breaks the connection
        except (QueryError, OSError) as failure:
            error = failure if isinstance(failure, QueryError) else from_host(failure)
            log.info("query.failed", kind=task.kind.value, code=error.code, ms=_ms(started), error=error.text[:300])
            if not answer.streaming:
                await answer.error(error)
            self._broken.notice(error)
            return
        if task.kind is Kind.INSERT:
            self._broken.stored()
        log.debug("query.done", kind=task.kind.value, ms=_ms(started))

    async def _answer(self, query: Query, upload: Upload, task: Task, answer: Answer, receive: Receive) -> None:
        try:
            pipe = Pipe()
        except OSError:
            upload.close()
            raise
        running = self._database.submit(task, query, upload, pipe.path, pipe.write_fd)
        gone = asyncio.ensure_future(_wait_gone(receive, pipe))
        try:
            await answer.rows(pipe, running, task, wait=query.wait, codec=query.codec)
        finally:
            gone.cancel()
            pipe.close()
            if not running.done():
                # Only here when the client left.
                await asyncio.shield(self._database.cancel(task, running))


def _text_bytes(query: Query, piece: bytes) -> int:
    """Return how much of a body that begins with ``piece`` is an INSERT's text, before its data."""
    if query.content_encoding or query.form:
        return 0
    before = query.sql + b"\n" if query.sql else b""
    return max(0, insert_text_bytes(before + piece) - len(before))


async def _wait_gone(receive: Receive, pipe: Pipe) -> None:
    """Watch for the client to leave."""
    while (await receive())["type"] != "http.disconnect":
        pass
    pipe.abort(ClientGoneError())


async def _plain(send: Send, status: int, body: bytes) -> None:
    headers = [
        (b"content-type", b"text/html; charset=UTF-8" if status == 200 else b"text/plain; charset=UTF-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-clickhouse-server-display-name", b"midstream"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
