"""Log lines about requests that failed through us, took long or proved nothing; a line for each request would cost
more than it tells.

What is counted of all requests stands in the metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from midstream.logs import get_logger
from midstream.request_ids import RequestId

SLOW_S = 5.0
"""A request that waited longer for the head of its reply is told."""

_LINES_PER_S = 10
_MAX_PATH_CHARS = 200

_log = get_logger(__name__)


class RequestLog:
    """At most ten lines a second; the next line then says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0.0
        self._lines = 0
        self._left_out = 0

    def end(self, request_id: RequestId, status: int, seconds: float, method: str, path: str) -> None:
        """End a request, and tell of it where it failed or was slow. ``path`` has no query: that may hold a secret."""
        if status >= 500 or seconds > SLOW_S:
            event = "request.failed" if status >= 500 else "request.slow"
            about = {"status": status, "seconds": round(seconds, 3), "method": method[:20]}
            self._tell(_log.warning, event, path, about)
        request_id.is_over = True

    def refuse(self, path: str, reason: str) -> None:
        """Tell of a request whose token proved nothing: anybody can send those, as fast as the line carries them."""
        self._tell(_log.info, "request.unauthorized", path, {"reason": reason})

    def _tell(self, tell: Callable[..., object], event: str, path: str, about: Mapping[str, object]) -> None:
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._lines = now, 0
        if self._lines >= _LINES_PER_S:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        tell(event, **about, path=path[:_MAX_PATH_CHARS], left_out=left_out or None)
