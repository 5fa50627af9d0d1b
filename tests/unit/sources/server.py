"""An HTTP server that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

Answer = Callable[["Request"], None]


class Asked(NamedTuple):
    """What a request asked for."""

    query: dict[str, list[str]]
    headers: dict[str, str]


class Request(BaseHTTPRequestHandler):
    """A request, and how to answer it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query, keep_blank_values=True)
        self.route = url.path
        self.server.requests.append(Asked(self.query, dict(self.headers.items())))
        self.server.answer(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def give(self, body: object, status: int = 200, **headers: str) -> None:
        """Answer with a body: bytes, or what becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        shown = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        for name, text in shown.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin(self, head: bytes) -> None:
        """Write bytes as they are; the connection ends with the answer."""
        self.close_connection = True
        self.wfile.write(head)
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """Counts what it is asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.requests: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that go away half way are meant


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """Run a server in a thread."""
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
