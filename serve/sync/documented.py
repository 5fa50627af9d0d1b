"""``POST /api/data/v1/index/sync`` as the OpenAPI document shows it."""

from __future__ import annotations

from typing import Any

from midstream.dimensions import DimensionType
from serve.openapi import MEANINGS
from serve.sync.envelope import (
    API_ID,
    API_VERSION,
    BAD_SHAPE,
    NO_JSON,
    NO_TYPE,
    SERVER_ERROR,
    UNKNOWN_TYPE,
)

SYNC = """\
Reads the objects of a type, or some of them, from their source (where one is configured), brings their rows into
ClickHouse, and corrects the copies in events that are stored. The reply comes at once and names the job
(`result.node_id`): `GET /v1/sync/{id}` tells how far it is. `operationType: "sync"` waits up to 10 s and tells of
each id whether there is such an object. The same `x-request-id` (else `X-msgid`) of the same credential is the same
job. A form has the field `request` with the JSON text of that object."""

_MESSAGE_ID = "8e27cbf5-e299-43b0-bca7-8347f7e5abcf"
_REQUEST = {"objectType": "user", "objectIds": ["u-1", "u-2"], "operationType": "sync"}
_REQUEST_SCHEMA = {
    "type": "object",
    "required": ["objectType"],
    "properties": {
        "objectType": {"enum": [*DimensionType]},
        "objectIds": {"type": "array", "items": {"type": "string"}, "description": "Absent or empty: all."},
        "operationType": {"enum": ["sync"]},
        "full": {"type": "boolean", "description": "Read the source whole, not what changed since the last sync."},
        "force": {
            "type": "boolean",
            "description": "The source is right, though it has far fewer objects or lower versions than are known.",
        },
    },
}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["request"],
        "properties": {"request": {"type": "string", "description": "JSON text."}, "params": {"type": "string"}},
    }
}

BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["request"],
                "properties": {"params": {"type": "object"}, "request": _REQUEST_SCHEMA},
            },
            "example": {"params": {}, "request": _REQUEST},
        },
        "application/x-www-form-urlencoded": _FORM,
        "multipart/form-data": _FORM,
    },
}
HEADERS = [
    {"name": name, "in": "header", "schema": {"type": "string"}, "description": meaning}
    for name, meaning in (
        ("x-request-id", "Names the request; comes back as `params.resmsgid`."),
        ("X-msgid", "Likewise, where there is no `x-request-id`."),
        ("ts", "Not looked at."),
        ("X-Device-ID", "Not looked at."),
    )
]


def _example(err: str | None, errmsg: str | None, response_code: str, result: dict[str, Any]) -> dict[str, Any]:
    status = "SUCCESS" if err is None else "FAILED"
    params = {"resmsgid": _MESSAGE_ID, "msgid": _MESSAGE_ID, "err": err, "status": status, "errmsg": errmsg}
    return {
        "id": API_ID,
        "ver": API_VERSION,
        "ts": "2026-01-31 12:00:00:000+0000",
        "params": params,
        "responseCode": response_code,
        "result": result,
    }


_DONE = {"response": "SUCCESS", "node_id": "019ab1f0-2f4e-7d31-8a61-5b7c0a7f1e02"}
_REFUSALS: dict[int, tuple[tuple[str, str], ...]] = {
    400: (
        (NO_TYPE, "request.objectType is missing"),
        (UNKNOWN_TYPE, "Invalid Object Type."),
        (BAD_SHAPE, "request.objectIds[3] is no text"),
        (NO_JSON, "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
    ),
    401: (("UNAUTHORIZED", "Unauthorized"),),
    403: (("FORBIDDEN", "this needs an operator's token"),),
    408: (("BODY_TIMEOUT", "the body did not come within 30000 ms"),),
    413: (("BODY_TOO_LARGE", "the body is longer than 8388608 bytes"),),
    415: (("UNSUPPORTED_ENCODING", "the body may be gzip or plain"),),
    429: (("RATE_LIMITED", "too many requests with this credential"),),
    500: ((SERVER_ERROR, "the registry cannot be used now; try again"),),
    503: ((SERVER_ERROR, "1000 jobs wait, which is the most; try again"),),
}


def _refusals(status: int, codes: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    response_code = "SERVER_ERROR" if status >= 500 else "CLIENT_ERROR"
    examples = {code: {"value": _example(code, errmsg, response_code, {})} for code, errmsg in codes}
    meaning = MEANINGS.get(status, "A part is away, or the job has failed and will be tried again.")
    return {"description": meaning, "content": {"application/json": {"examples": examples}}}


REPLIES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {
                "example": _example(None, None, "OK", {**_DONE, "esSyncResponse": {"u-1": True, "u-2": False}})
            }
        }
    },
    **{status: _refusals(status, codes) for status, codes in _REFUSALS.items()},
}
