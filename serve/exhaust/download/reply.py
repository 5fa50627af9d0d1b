"""The reply that is an archive, or a part of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import Response

from midstream.exhaust.names import outer_name
from midstream.exhaust.variant import download_number, etag
from midstream.metrics import EXHAUST_DOWNLOADS, EXHAUST_FIRST_BYTE_SECONDS, EXHAUST_SENT_BYTES
from serve.exhaust import refused
from serve.exhaust.asked import Asked
from serve.exhaust.days.follow import NotBuiltError
from serve.exhaust.days.shelf import Built
from serve.exhaust.download.archive import Finished, all_built, growing
from serve.exhaust.download.ensure import check_days, ensure_built, not_built
from serve.exhaust.download.ranges import UnsatisfiableError, matches, part_of, wants_part
from serve.exhaust.download.sending import Download, Sent, client_of
from serve.exhaust.envelope import INTERNAL
from serve.exhaust.log import LogRow
from serve.services import Services

BEGIN_S = 0.3
"""How long a reply waits for what its first day may fail of: until then it can still be refused."""

# Made before they are counted: a sample of 0 says more than none.
_COMPLETE = EXHAUST_DOWNLOADS.labels("complete")
_BROKEN = EXHAUST_DOWNLOADS.labels("broken")


async def reply_with(services: Services, request: Request, asked: Asked) -> Response:
    """Return the reply of a request whose days may have to be built.

    Raises:
        RefusedError: a day is not closed, is gone, or cannot be built now; 503 too many downloads.
    """
    days = services.exhaust.days
    tag = etag(asked.keys)
    built = await all_built(days, asked)
    if built is None:
        await check_days(services, asked)
        if _wants_part(request, tag):
            await ensure_built(services, asked)
            built = await all_built(days, asked)
    if built is not None:
        return await finished_reply(services, request, asked, built)
    headers = _headers(asked, tag)
    if _has_it(request, tag):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return _Head(headers=headers)
    held = await _place(services, asked)
    try:
        growing_ = await held.enter_async_context(growing(days, asked, BEGIN_S))
    except NotBuiltError as error:
        await held.aclose()
        raise not_built(error, asked.msgid) from None
    except BaseException:
        await held.aclose()
        raise
    return _download(services, request, asked, growing_.read(), held, Noted("archive", datetime.now(UTC), 200), headers)


async def finished_reply(services: Services, request: Request, asked: Asked, built: Sequence[Built]) -> Response:
    """Return the reply of a request whose days are all there.

    Raises:
        RefusedError: 503 too many downloads.
    """
    tag = etag(asked.keys)
    headers = _headers(asked, tag)
    if _has_it(request, tag):
        return Response(status_code=304, headers=headers)
    finished = Finished(asked, built)
    start, stop, status = 0, finished.total_bytes, 200
    if _wants_part(request, tag):
        try:
            start, stop = part_of(request.headers["range"], finished.total_bytes)
        except UnsatisfiableError:
            headers = {"Content-Range": f"bytes */{finished.total_bytes}", "ETag": tag}
            return Response(status_code=416, headers=headers)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{finished.total_bytes}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return _Head(headers=headers)
    held = await _place(services, asked)
    noted = Noted("archive", datetime.now(UTC), status, start)
    return _download(services, request, asked, finished.read(start, stop), held, noted, headers)


def _headers(asked: Asked, tag: str) -> dict[str, str]:
    name = outer_name(asked.period.first, asked.period.last, download_number(asked.keys))
    return {
        "Content-Type": "application/zip",
        "Content-Disposition": f'attachment; filename="{name}"',
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
    }


def _wants_part(request: Request, tag: str) -> bool:
    headers = request.headers
    return request.method != "HEAD" and wants_part(headers.get("range"), headers.get("if-range"), tag)


def _has_it(request: Request, tag: str) -> bool:
    return request.method != "POST" and matches(request.headers.get("if-none-match"), tag)


async def _place(services: Services, asked: Asked) -> AsyncExitStack:
    """Return a place among the downloads of this process, held until it is closed.

    Raises:
        RefusedError: 503, all are taken.
    """
    slots = services.exhaust.slots
    if slots.locked():
        raise refused.refused(503, INTERNAL, "too many downloads are under way", asked.msgid)
    held = AsyncExitStack()
    await held.enter_async_context(slots)
    return held


@dataclass(frozen=True, slots=True)
class Noted:
    """What the log of downloads says of a reply.

    Attributes:
        what: archive or manifest.
        began: when the reply began.
        status: of the reply.
        first_byte: of the archive that it begins with.
    """

    what: str
    began: datetime
    status: int
    first_byte: int = 0


def _download(
    services: Services,
    request: Request,
    asked: Asked,
    chunks: AsyncGenerator[bytes],
    held: AsyncExitStack,
    noted: Noted,
    headers: dict[str, str],
) -> Download:
    ended = partial(note_download, services, request, asked, noted)
    return Download(chunks, held, Sent(), services.stopping, ended, status_code=noted.status, headers=headers)


class _Head(Response):
    """Only says what a GET would answer with: its length too, if that is known."""

    def init_headers(self, headers: Any = None) -> None:
        super().init_headers(headers)
        if "Content-Length" not in (headers or {}):
            self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]


def note_download(services: Services, request: Request, asked: Asked, noted: Noted, sent: Sent) -> None:
    """Count a reply that has ended, and have it written into the log of downloads."""
    (_COMPLETE if sent.whole else _BROKEN).inc()
    EXHAUST_SENT_BYTES.inc(sent.bytes)
    if sent.first_byte_s is not None:
        EXHAUST_FIRST_BYTE_SECONDS.observe(sent.first_byte_s)
    variant = asked.variant
    services.exhaust.log.note(
        LogRow(
            at=noted.began,
            licence=asked.licence.name,
            dataset=asked.dataset.name,
            resource=asked.resource,
            first_day=asked.period.first,
            last_day=asked.period.last,
            format=variant.format,
            eids=list(variant.eids),
            channels=list(variant.channels),
            what=noted.what,
            method=request.method,
            status=noted.status,
            first_byte=noted.first_byte,
            sent_bytes=sent.bytes,
            complete=sent.whole,
            seconds=round(sent.seconds, 3),
            client=client_of(request),
        )
    )
