"""``POST /v1/validate``: what would become of each event of a batch; nothing is stored."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from ingest.head import check_readable
from ingest.replies import RefusedError
from midstream.topics import MAX_MESSAGE_BYTES
from serve.auth import require_principal
from serve.bodies import read_raw
from serve.errors import ApiError
from serve.openapi import batch_body, error_replies
from serve.services import Services, services_of

router = APIRouter(tags=["telemetry"], dependencies=[Depends(require_principal)])

_EXAMPLE = {
    "valid": 1,
    "invalid": 1,
    "events": [
        {
            "index": 0,
            "mid": "INTERACT:0001",
            "eid": "INTERACT",
            "valid": True,
            "code": None,
            "pointer": None,
            "message": None,
            "duplicate_of": None,
        },
        {
            "index": 1,
            "mid": "INTERACT:0002",
            "eid": "INTERACT",
            "valid": False,
            "code": "SCHEMA_VIOLATION",
            "pointer": "/edata/type",
            "message": "'type' is a required property",
            "duplicate_of": None,
        },
    ],
}


@router.post(
    "/v1/validate",
    summary="Try a batch: what would become of each event",
    description="The body of the telemetry endpoint. Nothing is stored. `pointer` names the field to correct; "
    "`duplicate_of` the first event of the same `mid` in this body.",
    responses={
        200: {"content": {"application/json": {"example": _EXAMPLE}}},
        **error_replies(400, 401, 408, 413, 415, 429, 503),
    },
    openapi_extra={"requestBody": batch_body()},
)
async def validate(request: Request, services: Annotated[Services, Depends(services_of)]) -> Response:
    """Judge the events of a body."""
    try:
        check_readable(dict(request.scope["headers"]))
    except RefusedError as error:
        raise ApiError(error.code.value.status, error.code.name, error.message) from None
    body = await read_raw(
        request,
        max_bytes=min(services.settings.max_body_bytes, MAX_MESSAGE_BYTES),
        timeout_ms=services.settings.body_timeout_ms,
    )
    return Response(await services.validations.judge(body), media_type="application/json")
