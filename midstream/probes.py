"""The port of a process that serves nothing else: ``/metrics``, and ``/health``, whether it is alive.

Answers come from a thread of their own, so that they come while the process is busy. Alive means that the process
answers and that its event loop turns; what it waits for (Kafka, ClickHouse) does not count: starting it anew would not
bring that back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson

from midstream.exposition import CONTENT_TYPE, render_metrics
from midstream.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_BEAT_S = 1.0
_SILENT_TIMES_RECORD_TIMEOUT = 2
"""A step that stands still is ended by the worker itself, which counts it: a probe must not be quicker."""


class Heartbeat:
    """Beats on an event loop; any thread may ask when it last did."""

    def __init__(self, settings: Settings) -> None:
        self.limit_s = _SILENT_TIMES_RECORD_TIMEOUT * settings.record_timeout_ms / 1000
        self._at: float | None = None

    async def beat(self) -> None:
        """Beat until cancelled."""
        try:
            while True:
                self._at = time.monotonic()
                await asyncio.sleep(_BEAT_S)
        finally:
            self._at = None

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat beyond the usual; 0 before the first one, and once it was cancelled."""
        at = self._at
        return 0.0 if at is None else max(0.0, time.monotonic() - at - _BEAT_S)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds that a connection may say nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """A probe every few seconds is nothing to tell."""


def serve_probes(settings: Settings, port: int, heartbeat: Heartbeat) -> None:
    """Answer at ``MIDSTREAM_METRICS_HOST`` and ``port`` until the process ends.

    Raises:
        OSError: the address cannot be listened on.
    """

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        status, content_type, body = _page(environ["PATH_INFO"], heartbeat)
        start(
            status, [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        )
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    server = make_server(settings.metrics_host, port, answer, _Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()


def _page(path: str, heartbeat: Heartbeat) -> tuple[str, str, bytes]:
    if path == "/metrics":
        return "200 OK", CONTENT_TYPE, render_metrics()
    if path != "/health":
        return "404 Not Found", "application/json", orjson.dumps({"error": "there are /health and /metrics"})
    if heartbeat.silent_s > heartbeat.limit_s:
        stuck = {"status": "stuck", "loop_silent_s": round(heartbeat.silent_s, 1)}
        return "503 Service Unavailable", "application/json", orjson.dumps(stuck)
    return "200 OK", "application/json", orjson.dumps({"status": "alive"})
