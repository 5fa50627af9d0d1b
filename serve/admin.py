"""``GET /v1/admin/log``: what administrators did."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from midstream.registry.admin_log import MAX_PAGE, Act
from serve.auth import require_operator
from serve.errors import ApiError
from serve.openapi import error_replies, json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["administration"], dependencies=[Depends(require_operator)])

_PAGE = 100
_EXAMPLE = {
    "number": 17,
    "at": "2026-01-31T12:00:00.000Z",
    "actor": {"kind": "credential", "name": "ops", "address": "10.0.0.5"},
    "action": "credential.revoke",
    "object": "credential/app-1",
    "details": {},
    "outcome": "done",
    "request_id": "0198c7e2-0000-7000-8000-000000000000",
}


@router.get(
    "/v1/admin/log",
    summary="What administrators did, newest first",
    description="Who did what, when, from where, on which object. No row is ever changed, but for the id of a person "
    "who was erased; rows are kept for 400 days. `next` is the `before` of the page that follows.",
    responses={**json_reply(200, {"acts": [_EXAMPLE], "next": None}), **error_replies(400, 401, 403, 429, 503)},
)
async def get_log(
    services: Annotated[Services, Depends(services_of)],
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _PAGE,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before.")] = None,
    since: Annotated[datetime | None, Query(description="ISO 8601, UTC unless it names a zone.")] = None,
) -> JSONResponse:
    """Answer with a page."""
    if since is not None:
        try:
            since = since.replace(tzinfo=since.tzinfo or UTC).astimezone(UTC)
        except OverflowError:  # within hours of the calendar's first or last day, in another zone
            raise ApiError(400, "INVALID_REQUEST", "query.since: no moment in UTC") from None
    found = await services.control.run(services.control.acts, limit=limit, before=before, since=since)
    following = found[-1].number if len(found) == limit else None
    return JSONResponse({"acts": [shown(act) for act in found], "next": following})


def shown(act: Act) -> dict[str, Any]:
    """Return an act as it is shown."""
    return {
        "number": act.number,
        "at": act.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "actor": {"kind": act.actor_kind, "name": act.actor, "address": act.address},
        "action": act.action,
        "object": act.object,
        "details": act.details,
        "outcome": act.outcome,
        "request_id": act.request_id,
    }
