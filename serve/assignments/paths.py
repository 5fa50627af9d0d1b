"""Paths whose parts may hold anything, an encoded slash too."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from midstream.registry.academies.checks import MAX_SLUG_CHARS, is_slug
from serve.assignments import refused


class RawPathRoute(APIRoute):
    """Matches the path as it was sent: in the decoded one a slash of a slug would be one of the path. Parameters are
    to be read with :func:`decoded`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette's Route."""
        raw_path: bytes = scope["raw_path"].partition(b"?")[0]
        return super().matches({**scope, "path": raw_path.decode("latin-1")})


def decoded(part: str) -> str | None:
    """Return a part of a path as text; None when it is not UTF-8."""
    try:
        return unquote_to_bytes(part.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return None


def asset_of(part: str) -> str:
    """Return the asset that a part of a path names, which a record can be of or not.

    Raises:
        RefusedError: 400, it is no text.
    """
    slug = decoded(part)
    if slug is None:
        raise refused.bad_fields({"asset_slug": ["Not a valid string."]})
    return slug


def check_asset(slug: str) -> str:
    """Return an asset's slug that a record can be of.

    Raises:
        RefusedError: 400, too long, or with what no database keeps.
    """
    if not is_slug(slug):
        long = len(slug) > MAX_SLUG_CHARS
        message = f"Ensure this field has no more than {MAX_SLUG_CHARS} characters." if long else "Not a valid string."
        raise refused.bad_fields({"asset_slug": [message]})
    return slug
