"""What a request's headers say: whether its body can be read, and the facts that are kept with the batch."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import msgspec

from ingest.replies import ErrorCode, RefusedError

Headers = Mapping[bytes, bytes]
"""Names in lower case, as ASGI has them; of a name that stands twice, the last."""

MAX_FACT_CHARS = 512
"""Longest fact that is kept of a request: a device, a channel, an id. What is longer is cut."""

_MAX_USER_TOKEN_BYTES = 8 * 1024
_ENCODINGS = frozenset({b"", b"gzip", b"x-gzip", b"identity"})
_CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
_CHARSET = re.compile(rb';\s*charset\s*=\s*"?([^\s";]*)', re.IGNORECASE)
_CONTENT_TYPES = frozenset(
    {
        b"",
        b"application/json",
        b"text/json",
        b"text/plain",
        b"application/octet-stream",
        b"binary/octet-stream",
        b"application/gzip",
        b"application/x-gzip",
        b"application/x-www-form-urlencoded",  # what curl says unless it is told otherwise
    }
)


class _Claims(msgspec.Struct):
    sub: str = ""


_claims = msgspec.json.Decoder(_Claims)


def check_readable(headers: Headers) -> None:
    """Refuse an encoding or a content type that cannot be read.

    What is said of gzip is not relied on: clients say it without doing it, and do it without saying so.

    Raises:
        RefusedError: 415.
    """
    encoding = headers.get(b"content-encoding")
    if encoding is not None and not _ENCODINGS.issuperset(part.strip() for part in encoding.lower().split(b",")):
        raise RefusedError(ErrorCode.UNSUPPORTED_ENCODING)
    content_type = headers.get(b"content-type", b"")
    if content_type == b"application/json":
        return
    essence = content_type.partition(b";")[0].strip().lower()
    if essence not in _CONTENT_TYPES and not (essence.startswith(b"application/") and essence.endswith(b"+json")):
        raise RefusedError(ErrorCode.UNSUPPORTED_CONTENT_TYPE)
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in _CHARSETS:
        raise RefusedError(ErrorCode.UNSUPPORTED_CONTENT_TYPE)


def content_length(headers: Headers) -> int | None:
    """Return the announced size of the body, None when there is none that can be read."""
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() and len(value) < 20 else None


def authorization(headers: Headers) -> str | None:
    """Return the ``Authorization`` header."""
    value = headers.get(b"authorization")
    return None if value is None else value.decode("latin-1")


def fact(headers: Headers, name: bytes) -> str:
    """Return a header as text that is safe to keep and to send back, "" when it is not there."""
    value = headers.get(name)
    return "" if value is None else clean(value.decode("utf-8", "replace").strip())


def clean(text: str) -> str:
    """Cut a fact to size, and replace lone surrogates, which no JSON or UTF-8 can carry."""
    text = text[:MAX_FACT_CHARS]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def end_user(headers: Headers) -> str:
    """Return ``sub`` of the end user's token, unproven: it is kept for the record and grants nothing."""
    token = headers.get(b"x-authenticated-user-token")
    if token is None or len(token) > _MAX_USER_TOKEN_BYTES or token.count(b".") != 2:
        return ""
    payload = token.split(b".")[1]
    try:
        return clean(_claims.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4))).sub)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return ""
