"""Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them."""

from __future__ import annotations

from typing import Any

import orjson

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
MEDIA_TYPE = "text/event-stream"
STILL_HERE = b": still here\n\n"
"""A comment: whoever reads, and what is between, sees that the stream lives."""


def event_of(name: str, data: dict[str, Any]) -> bytes:
    """Return an event."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
