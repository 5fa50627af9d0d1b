"""Cross-origin requests: browsers send telemetry too (Fetch standard, "CORS protocol")."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.head import Headers
from ingest.replies import Header

_ALLOWED_HEADERS = (
    b"Authorization, Content-Type, Content-Encoding, X-Device-Id, X-Channel-Id, X-App-Id,"
    b" X-Authenticated-User-Token, X-Request-Id, X-msgid"
)
_PREFLIGHT: tuple[Header, ...] = (
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", _ALLOWED_HEADERS),
    (b"access-control-max-age", b"86400"),
)
_EXPOSED: Header = (b"access-control-expose-headers", b"X-Batch-Id, X-Request-Id, Retry-After")


class Cors:
    """Says which origins may post. Credentials of the browser itself (cookies) are never asked for."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)

    def headers(self, request: Headers, *, preflight: bool = False) -> list[Header]:
        """Return the headers that the reply to ``request`` needs; none when it is from no browser."""
        origin = request.get(b"origin")
        if self._any:
            if origin is None:
                return []
            allowed: list[Header] = [(b"access-control-allow-origin", b"*")]
        else:
            # A cache must not give one origin's reply to another, nor to whom names none.
            vary: Header = (b"vary", b"Origin")
            if origin is None or origin.lower() not in self._origins:
                return [vary]
            allowed = [vary, (b"access-control-allow-origin", origin)]
        return [*allowed, *_PREFLIGHT] if preflight else [*allowed, _EXPOSED]
