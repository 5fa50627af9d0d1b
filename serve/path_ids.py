"""Ids that end a path."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi import Request

from midstream.dimensions import DimensionError, check_id
from serve.errors import ApiError


def decode_id(request: Request, after: int) -> str:
    """Return the id that follows so many segments, URL-decoded once; slashes in it may be written either way.

    Raises:
        ApiError: 400 ``INVALID_ID`` when it is no text in UTF-8, empty or too long.
    """
    # The decoded path cannot be used: the server has put U+FFFD where bytes were not UTF-8.
    raw_path: bytes = request.scope["raw_path"].partition(b"?")[0]
    try:
        id_ = unquote_to_bytes(raw_path.split(b"/", after + 1)[-1]).decode()
        check_id(id_)
    except UnicodeDecodeError:
        raise ApiError(400, "INVALID_ID", "the id in the path is not UTF-8") from None
    except DimensionError as error:
        raise ApiError(400, error.code, str(error)) from None
    return id_
