"""``/v1/dataset/request``: downloads that take longer than a call should: submitted, built, then had by a link."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Security
from starlette.responses import JSONResponse, Response

from midstream.exhaust.names import FORMATS
from midstream.registry.exhaust.access import LicenceInfo
from midstream.registry.exhaust.errors import NotThereError, TooManyError
from midstream.registry.exhaust.requests import MAX_OPEN, Ask, RequestRow, Requests
from serve.assignments.paths import RawPathRoute
from serve.assignments.refused import RefusedError
from serve.devices.caller import base_url
from serve.exhaust import refused
from serve.exhaust.asked import (
    LICENCE,
    Asked,
    Said,
    asked_for,
    asked_variant,
    bearer_of,
    licence_of,
    read_said,
    text_of,
)
from serve.exhaust.days.shelf import Built
from serve.exhaust.download.ensure import check_days
from serve.exhaust.download.reply import finished_reply, reply_with
from serve.exhaust.envelope import API_ID, API_VERSION, INTERNAL, INVALID_DATA, NOT_AUTHORIZED, TOO_MANY, envelope
from serve.exhaust.requests.again import as_it_is
from serve.exhaust.requests.links import LINK
from serve.exhaust.requests.told import told
from serve.openapi import MEANINGS, json_body
from serve.services import Services, services_of

MAX_DAYS = 366
"""Days of one request, both ends counted."""
_MAX_PAGE = 100
_PAGE = 20

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PATH = "/v1/dataset/request"

router = APIRouter(tags=["exhaust"], route_class=RawPathRoute)

_Services = Annotated[Services, Depends(services_of)]

_BODY = {
    "id": API_ID,
    "ver": API_VERSION,
    "ts": "2026-01-01T00:00:00+00:00",
    "params": {"requesterId": "", "did": "", "key": "", "msgid": "m-1"},
    "request": {
        "licensekey": "00000000-0000-4000-8000-000000000000",
        "datasetId": "D001",
        "resourceId": "(SHA-1 of the partner's id)",
        "fromDate": "2026-01-01",
        "toDate": "2026-06-30",
        "format": "jsonl",
        "eid": [],
        "channel": [],
    },
}
_TOLD: dict[str, Any] = {
    "requestId": "9a0f1c1e-0000-4000-8000-000000000000",
    "status": "PROCESSING",
    "datasetId": "D001",
    "resourceId": "(SHA-1 of the partner's id)",
    "fromDate": "2026-01-01",
    "toDate": "2026-06-30",
    "format": "jsonl",
    "eid": [],
    "channel": [],
    "submittedAt": "2026-07-01T08:00:00.000Z",
    "completedAt": None,
    "expiresAt": None,
    "progress": {"days": 181, "daysBuilt": 90, "events": 1234567, "percent": 49},
    "events": None,
    "bytes": None,
    "downloadUrl": None,
    "errmsg": None,
}
_ENVELOPE = {
    "id": API_ID,
    "ver": API_VERSION,
    "ts": "2026-07-01T08:00:00.000Z",
    "params": {
        "resmsgid": "9a0f1c1e-0000-4000-8000-000000000000",
        "msgid": "m-1",
        "status": "successful",
        "err": None,
        "errmsg": None,
    },
}

_TOO_MANY: dict[int | str, dict[str, Any]] = {429: {"description": f"{MEANINGS[429]} The code is {TOO_MANY}."}}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"description": "The archive.", "content": {"application/zip": {}}},
    206: {"description": "A part of it.", "content": {"application/zip": {}}},
    304: {"description": "The client holds it."},
    416: {"description": "It has no such bytes."},
    500: {"description": "It had to be built anew, which failed."},
}


def _reply(result: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": {**_ENVELOPE, "result": result}}}}}


@router.post(
    f"{_PATH}/submit",
    summary="Have days built, for a download later",
    description=f"At most {MAX_DAYS} days; days that are not named are yesterday. The same again is the same request, "
    f"until it has expired. At most {MAX_OPEN} requests wait or are built at once. Formats: "
    f"{', '.join(FORMATS)}.",
    responses={**_reply(_TOLD), **refused.replies(400, 401, 403, 410, 503), **_TOO_MANY},
    openapi_extra={"requestBody": json_body(_BODY)},
)
async def submit(request: Request, services: _Services) -> Response:
    """Take a request."""
    said = await read_said(request, services.settings.body_timeout_ms)
    asked = await _asked(services, said)
    exhaust, licence = services.exhaust, asked.licence
    ask = Ask(asked.dataset.name, asked.resource, asked.period.first, asked.period.last, asked.variant)
    calls = exhaust.held.calls
    row = await calls.read(Requests.find, licence.id, ask)
    if row is None:
        await check_days(services, asked)
        try:
            row = await calls.change(Requests.submit, licence.id, ask)
        except TooManyError as error:
            raise refused.refused(429, TOO_MANY, str(error), said.msgid) from None
        exhaust.runner.wake()
    return _successful(await _told(services, request, row), said.msgid)


@router.get(
    f"{_PATH}/read/{{request_id}}",
    summary="How far a request is, and a link to its archive once that is there",
    description="The licence key goes into `Authorization: Bearer KEY`. A link is good for "
    f"{LINK.total_seconds() / 3600:.0f} hours at the most; each reading gives a new one.",
    dependencies=[Security(LICENCE)],
    responses={**_reply(_TOLD), **refused.replies(401, 403, 503)},
)
async def read(request: Request, services: _Services, request_id: str) -> Response:
    """Answer with a request."""
    licence = await _licence(services, request)
    id_ = text_of(request_id)
    row = await services.exhaust.held.calls.read(Requests.get, id_, licence.id) if _ID.fullmatch(id_) else None
    if row is None:
        raise _not_yours()
    return _successful(await _told(services, request, row))


@router.get(
    f"{_PATH}/list",
    summary="A licence's requests, the newest first",
    description="The licence key goes into `Authorization: Bearer KEY`. `next` goes into `after` for the next page; "
    "it is null at the end.",
    dependencies=[Security(LICENCE)],
    responses={**_reply({"requests": [_TOLD], "next": None}), **refused.replies(400, 401, 403, 503)},
)
async def list_(
    request: Request,
    services: _Services,
    limit: Annotated[str, Query(description=f"1 to {_MAX_PAGE}; {_PAGE} by default.")] = str(_PAGE),
    after: Annotated[str | None, Query(description="Id of a request: those older than it.")] = None,
) -> Response:
    """Answer with a page of requests."""
    licence = await _licence(services, request)
    if re.fullmatch(r"[0-9]{1,3}", limit) is None or not 1 <= int(limit) <= _MAX_PAGE:
        raise refused.refused(400, INVALID_DATA, f"limit is a number from 1 to {_MAX_PAGE}")
    if after is not None and _ID.fullmatch(after) is None:
        raise _not_yours()
    calls = services.exhaust.held.calls
    try:
        rows = list(await calls.read(Requests.page, licence.id, limit=int(limit) + 1, after=after))
    except NotThereError:
        raise _not_yours() from None
    page, more = rows[: int(limit)], rows[int(limit) :]
    listed = []
    for row in page:
        listed.append(await _told(services, request, row))
        await asyncio.sleep(0)  # reading SQLite gives nobody else a turn
    return _successful({"requests": listed, "next": page[-1].id if more else None})


async def download(
    request: Request,
    services: _Services,
    request_id: str,
    token: Annotated[str, Query(description="As the link has it.")] = "",
) -> Response:
    """Answer with a request's archive, or the part of it that was asked for."""
    exhaust = services.exhaust
    held = exhaust.held
    id_ = text_of(request_id)
    if _ID.fullmatch(id_) is None or not exhaust.links.opens(token, id_, held.calls.now()):
        raise _no_link()
    row = await held.calls.read(Requests.get, id_)
    if row is None:
        raise _no_link()
    row, asked = await as_it_is(held, row)
    if asked is None or row.status == "EXPIRED":
        raise _no_link()
    if row.is_open:
        exhaust.runner.wake()
        raise refused.refused(503, INTERNAL, "its days were revised: it is being built anew")
    if row.status == "FAILED" or row.tag is None:
        raise refused.refused(500, INTERNAL, f"it was to be built anew, which failed: {row.message}")
    built = await _kept(services, row, asked)
    if built is None:
        return await reply_with(services, request, asked)  # another machine has its files: the same bytes, built here
    return await finished_reply(services, request, asked, built)


def _add_downloads() -> None:
    for method in ("GET", "HEAD"):
        router.add_api_route(
            f"{_PATH}/download/{{request_id}}",
            download,
            methods=[method],
            response_class=Response,
            operation_id=f"{method.lower()}_request_download",
            summary="The archive of a request, by its link",
            description="As `downloadUrl` says: no key is needed. `Range` resumes; the bytes are those that a direct "
            "download of the same days gives.",
            responses={**_ZIP, **refused.replies(403, 503)},
            include_in_schema=method == "GET",
        )


async def _asked(services: Services, said: Said) -> Asked:
    inner = said.request
    dataset, resource = inner.get("datasetId"), inner.get("resourceId")
    if not isinstance(dataset, str) or not isinstance(resource, str):
        raise refused.refused(400, INVALID_DATA, "datasetId and resourceId are texts", said.msgid)
    first, last = inner.get("fromDate"), inner.get("toDate")
    if not isinstance(first, str | None) or not isinstance(last, str | None):
        raise refused.refused(400, INVALID_DATA, "fromDate and toDate are texts", said.msgid)
    format_, eids, channels = (
        default if inner.get(name) is None else inner[name]
        for name, default in (("format", ""), ("eid", []), ("channel", []))
    )
    variant = asked_variant(said, format_, eids, channels)
    access = services.exhaust.held.access
    return await asked_for(access, said, variant, dataset, resource, first, last, most_days=MAX_DAYS)


async def _licence(services: Services, request: Request) -> LicenceInfo:
    access = services.exhaust.held.access
    licence = await licence_of(access, Said("", bearer_of(request), {}))
    access.note_use(licence)
    return licence


def _successful(result: dict[str, Any], msgid: str = "") -> Response:
    return JSONResponse(envelope(msgid, result=result), headers={"Cache-Control": "no-store"})  # it holds links


async def _told(services: Services, request: Request, row: RequestRow) -> dict[str, Any]:
    """Return what is told of a request; one that must be built anew is begun again."""
    if row.status != "SUCCESS":
        return told(row, None)
    exhaust = services.exhaust
    row, asked = await as_it_is(exhaust.held, row)
    if row.is_open:
        exhaust.runner.wake()
    if row.status != "SUCCESS" or asked is None or row.expires_at is None:
        return told(row, None)
    token = exhaust.links.token(row.id, min(exhaust.held.calls.now() + LINK, row.expires_at))
    return told(row, f"{base_url(request, services)}{_PATH}/download/{row.id}?token={token}")


async def _kept(services: Services, row: RequestRow, asked: Asked) -> list[Built] | None:
    return await asyncio.to_thread(services.exhaust.held.kept.days, row.id, row.tag or "", asked.jobs)


def _not_yours() -> RefusedError:
    return refused.refused(403, NOT_AUTHORIZED, "the licence has no such request")


def _no_link() -> RefusedError:
    return refused.refused(403, NOT_AUTHORIZED, "the link is none, or is not good any more: read the request anew")


_add_downloads()
