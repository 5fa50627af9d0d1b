"""``/v1/datasets``: partners download raw events, day by day."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Security
from starlette.responses import JSONResponse, Response

from midstream.exhaust.manifest import manifest
from midstream.exhaust.names import FORMATS
from midstream.exhaust.variant import etag
from serve.assignments.paths import RawPathRoute
from serve.exhaust import refused
from serve.exhaust.asked import LICENCE, Asked, Said, asked_for, asked_variant, said_by, text_of
from serve.exhaust.download.ensure import ensure_built
from serve.exhaust.download.ranges import matches
from serve.exhaust.download.reply import Noted, note_download, reply_with
from serve.exhaust.download.sending import Sent
from serve.exhaust.envelope import API_ID, API_VERSION
from serve.openapi import json_body
from serve.services import Services, services_of

router = APIRouter(tags=["exhaust"], route_class=RawPathRoute)

_Services = Annotated[Services, Depends(services_of)]
_Format = Annotated[str, Query(description=f"{', '.join(FORMATS)}; jsonl by default: the events as they came.")]
_Eids = Annotated[list[str] | None, Query(description="Only events of these types; may stand several times.")]
_Channels = Annotated[list[str] | None, Query(description="Only events of these channels; may stand several times.")]

_BODY = {
    "id": API_ID,
    "ver": API_VERSION,
    "ts": "2026-01-01T00:00:00+00:00",
    "params": {"requesterId": "", "did": "", "key": "", "msgid": "m-1"},
    "request": {"licensekey": "00000000-0000-4000-8000-000000000000"},
}
_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"description": "The archive.", "content": {"application/zip": {}}},
    206: {"description": "A part of it.", "content": {"application/zip": {}}},
    304: {"description": "The client holds it."},
    416: {"description": "It has no such bytes."},
}
_REFUSED = refused.replies(400, 401, 403, 410, 500, 503)
_MANIFEST = {
    "days": [
        {
            "date": "2026-01-01",
            "events": 2,
            "bytes": 512,
            "sha256": "(hex)",
            "files": [
                {
                    "name": "data-exhaust-00.log-2026-01-01-1767225600000.gz",
                    "events": 2,
                    "bytes": 300,
                    "sha256": "(hex)",
                }
            ],
        }
    ]
}


@router.get(
    "/v1/datasets/{dataset}/{resource}/{first}/{last}/manifest",
    summary="What a download of these days holds, in numbers and hashes",
    description="The licence key goes into `Authorization: Bearer KEY`. Days that are not built yet are built first.",
    dependencies=[Security(LICENCE)],
    responses={200: {"content": {"application/json": {"example": _MANIFEST}}}, **_REFUSED},
)
async def get_manifest(
    request: Request,
    services: _Services,
    dataset: str,
    resource: str,
    first: str,
    last: str,
    format: _Format = "",
    eid: _Eids = None,
    channel: _Channels = None,
) -> Response:
    """Answer with the manifest."""
    said = await said_by(request, services.settings.body_timeout_ms)
    asked = await _asked(services, said, (dataset, resource, first, last), (format, eid, channel))
    began = datetime.now(UTC)
    facts = await ensure_built(services, asked)
    tag = etag(asked.keys)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if matches(request.headers.get("if-none-match"), tag):
        reply = Response(status_code=304, headers=headers)
    else:
        reply = JSONResponse(manifest(facts), headers=headers)
    sent = Sent()
    sent.bytes, sent.whole = len(reply.body), True
    note_download(services, request, asked, Noted("manifest", began, reply.status_code), sent)
    return reply


_PATHS = (
    "/v1/datasets/{dataset}/{resource}/{first}/{last}",
    "/v1/datasets/{dataset}/{resource}/{first}",
    "/v1/datasets/{dataset}/{resource}",
)


async def download(
    request: Request,
    services: _Services,
    dataset: str,
    resource: str,
    first: str | None = None,
    last: str | None = None,
    format: _Format = "",
    eid: _Eids = None,
    channel: _Channels = None,
) -> Response:
    """Answer with the archive, or the part of it that was asked for."""
    said = await said_by(request, services.settings.body_timeout_ms)
    asked = await _asked(services, said, (dataset, resource, first, last), (format, eid, channel))
    return await reply_with(services, request, asked)


def _add_routes() -> None:
    for path in _PATHS:
        form = path.count("{")
        router.add_api_route(
            path,
            download,
            methods=["POST"],
            response_class=Response,
            operation_id=f"post_download_{form}",
            summary="Download raw events, day by day",
            description="A zip with one file a day, `aggregated-YYYY-MM-DD.gz`, itself a zip of gzipped JSON lines by "
            "hour of receipt (UTC). Days that the path does not name are yesterday; at most 31. The licence key goes "
            "into the body. A closed day never changes: the same request gives the same bytes, and `Range` resumes.",
            responses={**_ZIP, **_REFUSED},
            openapi_extra={"requestBody": json_body(_BODY)},
        )
        for method in ("GET", "HEAD"):
            router.add_api_route(
                path,
                download,
                methods=[method],
                response_class=Response,
                operation_id=f"{method.lower()}_download_{form}",
                summary="Download raw events, with the licence key as a bearer token",
                description="The same bytes as POST gives. HEAD tells `ETag`, and the length once all days are built.",
                dependencies=[Security(LICENCE)],
                responses={**_ZIP, **_REFUSED},
                include_in_schema=method == "GET",
            )


async def _asked(
    services: Services,
    said: Said,
    path: tuple[str, str, str | None, str | None],
    query: tuple[str, list[str] | None, list[str] | None],
) -> Asked:
    dataset, resource, first, last = path
    format_, eids, channels = query
    variant = asked_variant(said, format_, eids or [], channels or [])
    return await asked_for(
        services.exhaust.access,
        said,
        variant,
        text_of(dataset),
        text_of(resource),
        None if first is None else text_of(first),
        None if last is None else text_of(last),
    )


_add_routes()
