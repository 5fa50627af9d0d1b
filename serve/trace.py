"""``/v1/trace``: what became of an event, by its ``mid``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Path, Request
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from midstream.clickhouse.client import ClickHouseError
from midstream.logs import get_logger
from midstream.registry.auth import Principal
from midstream.trace.arrivals import Trace, Verdict, seen_by
from midstream.trace.reply import as_dict, to_json
from midstream.trace.tracer import TracerBusyError
from serve.auth import require_principal
from serve.bodies import read_body
from serve.errors import ApiError
from serve.openapi import error_replies
from serve.services import Services, services_of

_log = get_logger(__name__)

MAX_MIDS = 1_000
_MAX_BODY_BYTES = 8 * 1024 * 1024
_PATH = b"/v1/trace/"

router = APIRouter(tags=["trace"])

_Services = Annotated[Services, Depends(services_of)]
_Principal = Annotated[Principal, Depends(require_principal)]

_ARRIVAL = {
    "batch_id": "019c1372-6d9d-7c10-8a4b-0d2d5a1f3c11",
    "event_index": 0,
    "msgid": "m-1",
    "received_at": "2023-11-14T22:13:20.000Z",
    "did": "device-1",
    "credential": "app-1",
    "source": "http",
    "topic": "telemetry.raw",
    "partition": 1,
    "offset": 4711,
    "outcome": "stored",
}
_STORED = {
    "mid": "INTERACT:0001",
    "verdict": "stored",
    "complete": True,
    "stored": {
        "table": "learning_events",
        "stored_at": "2023-11-14T22:13:20.310Z",
        "visible_at": "2023-11-14T22:13:20.355Z",
    },
    "reject": None,
    "arrivals": [_ARRIVAL, {**_ARRIVAL, "did": "device-2", "offset": 4712, "outcome": "duplicate", "differs": False}],
}
_REJECTED = {
    "mid": "INTERACT:0002",
    "verdict": "rejected",
    "complete": True,
    "stored": None,
    "reject": {"code": "SCHEMA_VIOLATION", "pointer": "/edata/type", "message": "'type' is a required property"},
    "arrivals": [{**_ARRIVAL, "outcome": "rejected", "code": "SCHEMA_VIOLATION"}],
}
_IN_FLIGHT = {
    "mid": "INTERACT:0003",
    "verdict": "in_flight",
    "complete": True,
    "stored": None,
    "reject": None,
    "arrivals": [{**_ARRIVAL, "outcome": "in_flight"}],
}
_NEVER_SEEN = "no event of this mid has been seen"
_UNKNOWN = {
    "code": "NOT_FOUND",
    "message": _NEVER_SEEN,
    "mid": "INTERACT:0004",
    "verdict": "unknown",
    "complete": True,
    "stored": None,
    "reject": None,
    "arrivals": [],
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["mid", "verdict", "complete", "stored", "reject", "arrivals"],
    "properties": {
        "mid": {"type": "string"},
        "verdict": {"enum": [*Verdict]},
        "complete": {"type": "boolean", "description": "False: part of what is on its way was not searched."},
        "stored": {
            "type": ["object", "null"],
            "required": ["table", "stored_at"],
            "properties": {
                "table": {"type": "string"},
                "stored_at": {"type": "string"},
                "visible_at": {"type": "string"},
            },
        },
        "reject": {
            "type": ["object", "null"],
            "properties": {name: {"type": "string"} for name in ("code", "pointer", "message")},
        },
        "arrivals": {
            "type": "array",
            "description": "In the order of receipt.",
            "items": {
                "type": "object",
                "properties": {
                    "batch_id": {"type": "string"},
                    "event_index": {"type": "integer"},
                    **{
                        name: {"type": ["string", "null"]} for name in ("msgid", "did", "credential", "source", "topic")
                    },
                    "received_at": {"type": "string"},
                    "partition": {"type": ["integer", "null"]},
                    "offset": {"type": ["integer", "null"]},
                    "outcome": {"enum": ["stored", "duplicate", "rejected", "in_flight"]},
                    "code": {"type": "string", "description": "Why it was rejected."},
                    "differs": {"type": "boolean", "description": "The duplicate's content is not the stored event's."},
                },
            },
        },
        "more_arrivals": {"type": "boolean", "description": "There: more arrivals than these."},
        "event": {"type": "object", "description": "The stored event as it was sent; for operators."},
    },
}
_DESCRIPTION = """\
Every arrival of the mid in the order of receipt, and a verdict, for events on their way too. An app's token sees the
arrivals of its own credential, an operator's all, with the stored `event`. 404 for a mid never seen;
`"complete": false` and never 404 while there is too much on its way to be searched."""


class _AnyText(Convertor[str]):
    """The rest of a path, line breaks too, which Starlette's own ``path`` stops at."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anytext", _AnyText())


def mid_of_path(
    request: Request,
    mid: Annotated[str, Path(description="The event's mid, URL-encoded; it may hold slashes.")],
) -> str:
    """Return the mid that ends the path, URL-decoded once; slashes in it may be written either way.

    Raises:
        ApiError: 400 when it is no text in UTF-8.
    """
    # The decoded path cannot be used: the server has put U+FFFD where bytes were not UTF-8.
    raw_path: bytes = request.scope["raw_path"].partition(b"?")[0]
    try:
        return unquote_to_bytes(raw_path.removeprefix(_PATH)).decode()
    except UnicodeDecodeError:
        raise ApiError(400, "INVALID_MID", "the mid in the path is not UTF-8") from None


@router.get(
    "/v1/trace/{mid:anytext}",
    summary="What became of an event",
    description=_DESCRIPTION,
    responses={
        200: {
            "content": {
                "application/json": {
                    "schema": _SCHEMA,
                    "examples": {
                        "stored": {"value": _STORED},
                        "rejected": {"value": _REJECTED},
                        "in_flight": {"value": _IN_FLIGHT},
                    },
                }
            }
        },
        **error_replies(400, 401, 429, 503),
        404: {
            "description": "Never seen.",
            "content": {"application/json": {"schema": _SCHEMA, "example": _UNKNOWN}},
        },
    },
)
async def get_trace(principal: _Principal, services: _Services, mid: Annotated[str, Depends(mid_of_path)]) -> Response:
    """Answer with one trace."""
    (trace,) = await _trace(services, principal, [mid], with_event=principal.role == "operator")
    if trace.verdict is Verdict.UNKNOWN and trace.complete:
        raise ApiError(404, "NOT_FOUND", _NEVER_SEEN, **as_dict(trace))
    return Response(to_json(trace), media_type="application/json")


@router.post(
    "/v1/trace",
    summary="What became of many events",
    description=f"Up to {MAX_MIDS} mids; a trace of each, in their order, without `event`. A mid never seen has the "
    "verdict `unknown`.",
    responses={
        200: {
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["traces"],
                        "properties": {"traces": {"type": "array", "items": _SCHEMA}},
                    },
                    "example": {"traces": [_STORED, _REJECTED]},
                }
            }
        },
        **error_replies(400, 401, 408, 413, 415, 429, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["mids"],
                        "properties": {"mids": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_MIDS}},
                    },
                    "example": {"mids": ["INTERACT:0001", "INTERACT:0002"]},
                }
            },
        }
    },
)
async def post_traces(request: Request, principal: _Principal, services: _Services) -> Response:
    """Answer with many traces."""
    body = await read_body(
        request,
        max_bytes=_MAX_BODY_BYTES,
        max_inflated_bytes=_MAX_BODY_BYTES,
        timeout_ms=services.settings.body_timeout_ms,
    )
    traces = await _trace(services, principal, read_mids(body), with_event=False)
    return Response(b'{"traces":[' + b",".join(map(to_json, traces)) + b"]}", media_type="application/json")


def read_mids(body: bytes) -> list[str]:
    """Return the mids of a body.

    Raises:
        ApiError: 400 when it is not of the form, 413 when it has too many.
    """
    try:
        # The standard library's parser: half a surrogate pair in one mid must not cost the others their answer.
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "INVALID_BODY", f"the body is not JSON: {str(error)[:200]}") from None
    mids = asked.get("mids") if isinstance(asked, dict) else None
    if not isinstance(mids, list):
        raise ApiError(400, "INVALID_BODY", 'expected {"mids": [MID, ...]}')
    if len(mids) > MAX_MIDS:
        raise ApiError(413, "TOO_MANY_MIDS", f"up to {MAX_MIDS} mids are traced at once")
    for index, mid in enumerate(mids):
        if not isinstance(mid, str):
            raise ApiError(400, "INVALID_BODY", f"mids[{index}] is no string")
    return mids


async def _trace(services: Services, principal: Principal, mids: Sequence[str], *, with_event: bool) -> list[Trace]:
    credential = None if principal.role == "operator" else principal.key
    try:
        traces = await services.tracer.trace(mids, with_event=with_event, credential=credential)
    except TracerBusyError:
        raise ApiError(503, "BUSY", "as many traces as this process takes are under way; try again") from None
    except ClickHouseError as error:
        _log.warning("clickhouse.unavailable", error=str(error))
        raise ApiError(503, "CLICKHOUSE_UNAVAILABLE", "ClickHouse does not answer now; try again") from None
    return traces if credential is None else [seen_by(trace, credential) for trace in traces]
