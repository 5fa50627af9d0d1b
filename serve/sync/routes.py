"""``POST /api/data/v1/index/sync``, and ``/v1/sync``: jobs asked for, shown and cancelled.

A 200 means that the job is in the registry: it is run sooner or later, whatever dies.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from midstream.dimensions import DimensionType
from midstream.logs import get_logger
from midstream.registry.auth import Principal
from midstream.registry.sync.errors import EndedError, NoJobError, TooManyJobsError
from midstream.registry.sync.jobs import MAX_PAGE, JobRow, Jobs, Order, Status
from serve.auth import require_operator
from serve.bodies import read_body
from serve.errors import ApiError
from serve.openapi import error_replies, json_reply
from serve.services import Services, services_of
from serve.sync import documented
from serve.sync.asked import Asked, read_asked
from serve.sync.envelope import PATH, good_reply, request_id_of
from serve.sync.shown import EXAMPLE, shown
from serve.sync.waiting import told_of_each

_log = get_logger(__name__)

_LARGE_BYTES = 64 * 1024
_PAGE = 20

router = APIRouter(tags=["sync"])

_Services = Annotated[Services, Depends(services_of)]
_Operator = Annotated[Principal, Depends(require_operator)]


@router.post(
    f"{PATH}/sync",
    summary="Make ClickHouse agree with where objects come from",
    description=documented.SYNC,
    responses=documented.REPLIES,
    openapi_extra={"requestBody": documented.BODY, "parameters": documented.HEADERS},
)
async def post_sync(request: Request, services: _Services, operator: _Operator) -> JSONResponse:
    """Take a job, and say which."""
    settings, syncs = services.settings, services.syncs
    limit = settings.sync_max_bytes
    body = await read_body(request, max_bytes=limit, max_inflated_bytes=limit, timeout_ms=settings.body_timeout_ms)
    kind = request.headers.get("content-type", "")
    if len(body) < _LARGE_BYTES:
        asked = read_asked(kind, body, settings.sync_max_ids)
    else:
        asked = await asyncio.to_thread(read_asked, kind, body, settings.sync_max_ids)
    request_id = request_id_of(request.headers)
    job = await create_job(services, await _without_erased(services, asked), operator, request_id)
    result: dict[str, Any] = {"node_id": job.id}
    if asked.waits:
        result["esSyncResponse"] = await told_of_each(syncs, job, asked.order.ids or ())
    return JSONResponse(good_reply(request_id or str(uuid4()), result))


async def create_job(services: Services, order: Order, operator: Principal, request_id: str | None) -> JobRow:
    """Put a job into the registry, or find that of an earlier request of this id.

    Raises:
        ApiError: 503, too many wait.
        RegistryUnavailable: the registry is away.
    """
    try:
        job, is_new = await services.syncs.calls.change(Jobs.create, order, operator.key, request_id)
    except TooManyJobsError as error:
        raise ApiError(503, "BUSY", f"{error}; try again") from None
    _log.info("sync.asked", job=job.id, kind=order.kind, type=order.type, objects=job.objects, new=is_new)
    return job


async def _without_erased(services: Services, asked: Asked) -> Order:
    """Return the order without objects that were erased: no job may name them again, and there are none."""
    order = asked.order
    if order.ids is None:
        return order
    erased = await services.syncs.erased.among(order.type, order.ids)
    kept = tuple(id_ for id_ in order.ids if id_ not in erased) if erased else order.ids
    return Order(order.kind, order.type, kept, order.options)


@router.get(
    "/v1/sync",
    summary="List jobs",
    description="The newest first. Jobs are known for 90 days after their end.",
    responses={
        **json_reply(200, {"jobs": [EXAMPLE], "next": None}),
        **error_replies(400, 401, 403, 404, 429, 503),
    },
)
async def list_jobs(
    services: _Services,
    _: _Operator,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _PAGE,
    after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
) -> JSONResponse:
    """Answer with a page."""
    try:
        found = await services.syncs.calls.read(Jobs.page, limit=limit, after=_sought(after), status=status)
    except NoJobError as error:
        raise ApiError(404, "NOT_FOUND", str(error)) from None
    following = found[-1].id if len(found) == limit else None
    return JSONResponse({"jobs": [shown(job) for job in found], "next": following})


@router.get(
    "/v1/sync/{id}",
    summary="How far a job is",
    description="`changed` counts rows by table, as far as it is. `error` says why it failed, or why its last try did.",
    responses={**json_reply(200, EXAMPLE), **error_replies(401, 403, 404, 429, 503)},
)
async def get_job(services: _Services, _: _Operator, id: str) -> JSONResponse:
    """Answer with the job."""
    job = await services.syncs.calls.read(Jobs.get, _sought(id) or "")
    if job is None:
        raise ApiError(404, "NOT_FOUND", "there is no such job")
    return JSONResponse(shown(job))


@router.post(
    "/v1/sync/{id}/cancel",
    summary="Cancel a job",
    description="One that waits ends at once, one that runs at its next safe point: what it has changed by then stays, "
    "and is whole. An erasure that has begun goes on to its end.",
    status_code=202,
    responses={**json_reply(202, EXAMPLE), **error_replies(401, 403, 404, 409, 429, 503)},
)
async def cancel_job(services: _Services, _: _Operator, id: str) -> JSONResponse:
    """Answer with the job as it is then."""
    try:
        job = await services.syncs.calls.change(Jobs.cancel, _sought(id) or "")
    except NoJobError:
        raise ApiError(404, "NOT_FOUND", "there is no such job") from None
    except EndedError as error:
        raise ApiError(409, "ENDED", str(error)) from None
    return JSONResponse(shown(job), 202)


def _sought(id_: str | None) -> str | None:
    """Return an id as the registry can be asked for it: PostgreSQL takes no text with a NUL, and no job has one."""
    return "" if id_ is not None and "\x00" in id_ else id_


async def begin_deletion(
    services: Services, operator: Principal, request: Request, type_: DimensionType, id_: str, *, erase: bool
) -> JSONResponse:
    """Take a job that deletes or erases an object; 202 says which.

    Raises:
        ApiError: 400, it is to be erased and is no user; 409, it was erased: there is nothing to delete; 503, too many
            jobs wait.
        RegistryUnavailable: the registry is away.
    """
    if erase and type_ is not DimensionType.USER:
        raise ApiError(400, "INVALID_REQUEST", f"a {type_} cannot be erased: only users can")
    if not erase:
        await refuse_erased(services, type_, id_)
    order = Order("erase" if erase else "delete", type_, (id_,))
    job = await create_job(services, order, operator, request_id_of(request.headers))
    return JSONResponse({"node_id": job.id}, 202)


async def refuse_erased(services: Services, type_: DimensionType, id_: str) -> None:
    """See that an object was not erased.

    Raises:
        ApiError: 409, it was.
        RegistryUnavailable: it cannot be told now.
    """
    if await services.syncs.erased.among(type_, (id_,)):
        raise ApiError(409, "ERASED", f"this {type_} was erased, and is not taken again")
