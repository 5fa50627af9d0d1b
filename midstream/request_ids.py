"""The id of each request: in its reply, and in each log line that is written for it.

A client's own ``X-Request-Id`` is kept where it is well formed, so that one id leads through a client's log, a
proxy's and ours; else one is made. An id proves nothing: whoever sends it chooses it.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

from uuid_utils import uuid7

HEADER = b"x-request-id"

_FORM = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,128}")


class RequestId:
    """The id of a request under way.

    Attributes:
        text: the id.
        is_ours: whether it was made here, so that no other request has it.
        is_over: set once the reply is sent. What a request began that goes on without it, such as a connection's
            upkeep, must not be told by its id.
    """

    __slots__ = ("is_ours", "is_over", "text")

    def __init__(self, given: bytes | None) -> None:
        self.is_over = False
        if given is not None and _FORM.fullmatch(given) is not None:
            self.is_ours = False
            self.text = given.decode("ascii")
        else:
            self.is_ours = True
            self.text = str(uuid7())

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The reply's header."""
        return HEADER, self.text.encode("ascii")


_NONE = RequestId(b"-")
_NONE.is_over = True
_current: ContextVar[RequestId] = ContextVar("request_id", default=_NONE)


def begin_request(given: bytes | None) -> RequestId:
    """Name the request that this task answers; ``given`` is its ``X-Request-Id``."""
    request_id = RequestId(given)
    _current.set(request_id)
    return request_id


def current_request_id() -> str:
    """Return the id of the request under way, "" outside of one."""
    current = _current.get()
    return "" if current.is_over else current.text


def add_request_id(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put the id into a log line. A processor of structlog."""
    current = _current.get()
    if not current.is_over:
        line["request_id"] = current.text
    return line
