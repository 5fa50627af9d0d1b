"""Bodies of the fleet's API: JSON objects, read within bounds, and what in them may be kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Request
from msgspec import Meta

from midstream.devices.report import MAX_MESSAGE_BYTES, ReportError, read_object, read_timestamp
from midstream.registry.fleet.errors import FleetError
from serve.bodies import read_raw
from serve.services import Services

MAX_OBJECT_BYTES = 256 * 1024
"""Largest JSON body of these calls."""

_MAX_DEPTH = 64
_NO_NUL = r"\A[^\x00]*\Z"  # PostgreSQL keeps no text with one
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Text = Annotated[str, Meta(max_length=256, pattern=_NO_NUL)]
Mac = Annotated[str, Meta(max_length=64, pattern=_NO_NUL)]
Version = Annotated[str, Meta(max_length=128, pattern=_NO_NUL)]
Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=_NO_NUL)]
LongText = Annotated[str, Meta(max_length=MAX_MESSAGE_BYTES, pattern=_NO_NUL)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""A version that is counted; what the registry's integers hold."""

Content = dict[str, Any]
"""Any object; see :func:`check_depth`."""

T = TypeVar("T")


async def read_content(request: Request, services: Services, max_bytes: int = MAX_OBJECT_BYTES) -> Content:
    """Return the object that a body is.

    Raises:
        FleetError: 422, it is no JSON or no object, or nested too deeply.
        ApiError: 413 too large, 408 too slow, 400 the client went away.
    """
    body = await read_raw(request, max_bytes=max_bytes, timeout_ms=services.settings.body_timeout_ms)
    try:
        content = read_object(body)
    except ReportError as error:
        raise FleetError(str(error)) from None
    _check_depth(content)
    return content


async def read_as(request: Request, services: Services, type_: type[T]) -> T:
    """Return what a body says, as a type; members that the type does not have are left alone.

    Raises:
        FleetError: 422, it is no JSON, no object, or not of the type.
        ApiError: see :func:`read_content`.
    """
    content = await read_content(request, services)
    try:
        return msgspec.convert(content, type_)
    except msgspec.ValidationError as error:
        raise FleetError(str(error)) from None


def _check_depth(content: Content) -> None:
    level: list[Any] = [content]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise FleetError(f"The body must not be nested more than {_MAX_DEPTH} levels deep")


def sought(id_: str) -> str:
    """Return an id as the registry can be asked for it: PostgreSQL takes no text with a NUL, and nothing has one."""
    return "" if "\x00" in id_ else id_


def moment_us(text: str | None, name: str) -> int | None:
    """Return an ISO 8601 moment as microseconds since 1970; None for none or "".

    Raises:
        FleetError: 422, it is none.
    """
    try:
        return read_timestamp(text or None)
    except ReportError as error:
        raise FleetError(str(error).replace("timestamp", name, 1)) from None


def to_moment(us: int) -> datetime:
    """Return microseconds since 1970 as a moment.

    Raises:
        FleetError: 422, no calendar holds it.
    """
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        raise FleetError("A moment must be one of the years 1 to 9999") from None


def iso(moment: datetime | None) -> str | None:
    """Return a moment as these APIs write it, in milliseconds."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_us(us: int) -> str:
    """Return microseconds since 1970 as these APIs write a moment, none of its digits lost."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
