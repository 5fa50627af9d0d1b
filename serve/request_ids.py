"""Gives each request of the api its id, and its reply what every reply has."""

from __future__ import annotations

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from midstream.request_ids import HEADER, begin_request
from midstream.request_log import RequestLog


class RequestIds:
    """Wraps an application; outermost, so that replies about its own failures have an id too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = RequestLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = begin_request(next((value for name, value in scope["headers"] if name == HEADER), None))
        status, seconds = 0, 0.0

        async def send_with_id(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - began
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id.text
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        await self._app(scope, receive, send_with_id)
        # Not after an exception: the server's line about it shall have the id.
        self._log.end(request_id, status, seconds, scope["method"], scope["path"])
