"""The collector as an application of its own: its paths, ``/health``, ``/accepting`` and ``/metrics``.

On one machine the web application of :mod:`serve` mounts :class:`Collector` instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from ingest.body import Receive
from ingest.collector import PATHS, Collector
from ingest.publish import Publisher
from ingest.replies import ErrorCode, RefusedError, Reply, Send, refused, send_reply
from midstream.exposition import CONTENT_TYPE, render_metrics
from midstream.logs import get_logger
from midstream.request_ids import HEADER, begin_request
from midstream.settings import Settings
from midstream.web import ending_with_parent

__all__ = ["PATHS", "Collector", "create_app"]

_log = get_logger(__name__)

App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


def create_app(settings: Settings, publisher: Publisher | None = None) -> App:
    """Make the ASGI application; ``publisher`` None: Kafka. Its lifespan starts and drains the collector."""
    collector = Collector(settings, publisher)

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if collector.handles(path):
                await collector(scope, receive, send)
            else:
                request_id = begin_request(dict(scope["headers"]).get(HEADER))
                reply = _look(collector, path, scope["method"], request_id.text)
                await send_reply(send, reply, [request_id.header])
        elif scope["type"] == "lifespan":
            async with ending_with_parent():
                await _live(collector, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    return app


def _look(collector: Collector, path: str, method: str, request_id: str) -> Reply:
    pages = {"/health": _health, "/accepting": _accepting, "/metrics": _metrics}
    page = pages.get(path)
    if page is None:
        return refused(RefusedError(ErrorCode.NOT_FOUND), request_id, "")
    if method not in ("GET", "HEAD"):
        return refused(RefusedError(ErrorCode.METHOD_NOT_ALLOWED, allow="GET"), request_id, "")
    return page(collector)


def _health(_collector: Collector) -> Reply:
    return _json(200, {"status": "alive"})


def _accepting(collector: Collector) -> Reply:
    if collector.accepting():
        return _json(200, {"accepting": True})
    return _json(503, {"accepting": False})


def _json(status: int, content: dict[str, Any]) -> Reply:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    return Reply(status, headers, orjson.dumps(content))


def _metrics(_collector: Collector) -> Reply:
    return Reply(200, [(b"content-type", CONTENT_TYPE.encode())], render_metrics())


async def _live(collector: Collector, receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await collector.startup()
            except Exception as error:  # noqa: BLE001  a process's top: the server ends it with this message
                _log.exception("collector.start_failed")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await collector.shutdown()
            await send({"type": "lifespan.shutdown.complete"})
            return
