"""The OpenAPI document and its page, which works without the internet."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse

DESCRIPTION = """\
Telemetry in, countable events in ClickHouse out: each exactly once, or in a place that says why not.

Send batches to `/api/data/v1/telemetry`; try them before with `/v1/validate`, ask after them with `/v1/trace`; push the
objects that events speak of to `/v1/dimensions`. Every call but the probes needs `Authorization: Bearer TOKEN`, which
`midstream token create NAME` prints.
"""

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
}
_MEANINGS = {
    400: "What no retry can mend.",
    401: "No token, or a bad one.",
    403: "The token's credential may not do this.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It is taken.",
    413: "Larger than the limit.",
    415: "An encoding that cannot be read.",
    429: "Over the credential's rate limit; see Retry-After.",
    503: "Full, or a part is away; see Retry-After.",
}


def error_replies(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for these statuses."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {"application/json": {"schema": _ERROR_SCHEMA}},
        }
        for status in statuses
    }


def batch_body() -> dict[str, Any]:
    """Return the ``requestBody`` of a telemetry batch."""
    return {
        "required": True,
        "description": "JSON, or gzip of it.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["events"],
                    "properties": {
                        "id": {"type": "string"},
                        "ver": {"type": "string"},
                        "ts": {"type": "string", "description": "ISO 8601, UTC."},
                        "ets": {"type": "integer", "description": "Epoch milliseconds."},
                        "params": {
                            "type": "object",
                            "properties": {name: {"type": "string"} for name in ("did", "key", "msgid", "requesterId")},
                        },
                        "events": {"type": "array", "items": {"type": "object"}},
                    },
                },
                "example": {
                    "id": "api.telemetry",
                    "ver": "3.0",
                    "ets": 1700000000000,
                    "params": {"msgid": "m-1", "did": "device-1"},
                    "events": [_EVENT],
                },
            }
        },
    }


_EVENT = {
    "eid": "INTERACT",
    "ets": 1700000000000,
    "ver": "3.0",
    "mid": "INTERACT:0001",
    "actor": {"id": "user-1", "type": "User"},
    "context": {
        "channel": "channel-1",
        "pdata": {"id": "app", "ver": "1.0", "pid": "player"},
        "env": "ContentPlayer",
        "sid": "session-1",
        "did": "device-1",
    },
    "object": {"id": "do_1", "type": "Content", "ver": "1"},
    "tags": [],
    "edata": {"type": "TOUCH", "id": "next", "pageid": "page-1"},
}

_TELEMETRY_REPLY_EXAMPLE = {
    "id": "api.telemetry",
    "ver": "1.0",
    "ts": "2023-11-14T22:13:20.000Z",
    "ets": 1700000000000,
    "params": {
        "resmsgid": "9a0f1c1e-0000-4000-8000-000000000000",
        "msgid": "m-1",
        "status": "successful",
        "err": None,
        "errmsg": None,
    },
    "responseCode": "SUCCESS",
}

_TELEMETRY_REPLY = {
    "type": "object",
    "required": ["id", "ver", "ts", "ets", "params", "responseCode"],
    "properties": {
        "id": {"type": "string"},
        "ver": {"type": "string"},
        "ts": {"type": "string"},
        "ets": {"type": "integer"},
        "params": {
            "type": "object",
            "properties": {
                "resmsgid": {"type": "string"},
                "msgid": {"type": ["string", "null"]},
                "status": {"enum": ["successful", "failed"]},
                "err": {"type": ["string", "null"]},
                "errmsg": {"type": ["string", "null"]},
            },
        },
        "responseCode": {"type": "string"},
    },
}

_TELEMETRY_HEADERS = {
    "X-Device-Id": "Device of the batch; `params.did` of the body wins.",
    "X-Channel-Id": "Channel of the batch.",
    "X-App-Id": "Application of the batch.",
    "X-Request-Id": "Comes back as `params.resmsgid`.",
    "X-msgid": "Comes back as `params.msgid` when the body has none.",
    "X-Authenticated-User-Token": "The end user's token; its `sub` is kept.",
}


def _telemetry_operation() -> dict[str, Any]:
    """Describe the collector's endpoint: it is served apart from this application, for speed."""

    def reply(meaning: str) -> dict[str, Any]:
        return {
            "description": meaning,
            "headers": {"X-Batch-Id": {"description": "The receipt.", "schema": {"type": "string"}}},
            "content": {"application/json": {"schema": _TELEMETRY_REPLY}},
        }

    accepted = reply("Durable: every byte of the batch.")
    accepted["content"]["application/json"]["example"] = _TELEMETRY_REPLY_EXAMPLE
    return {
        "tags": ["telemetry"],
        "summary": "Send a batch of events",
        "description": "A 200 means that the batch is durable. One bad event never fails its batch: it is found "
        "in `rejects` with a reason. A batch may be sent again, whole; events are told apart by `mid`.",
        "security": [{"bearer": []}],
        "parameters": [
            {"name": name, "in": "header", "schema": {"type": "string"}, "description": meaning}
            for name, meaning in _TELEMETRY_HEADERS.items()
        ],
        "requestBody": batch_body(),
        "responses": {
            "200": accepted,
            **{str(status): reply(_MEANINGS[status]) for status in (400, 401, 403, 408, 413, 415, 429, 503)},
        },
    }


def _restore_nulls(routers: Sequence[APIRouter], document: dict[str, Any]) -> None:
    """Put the examples of replies back as they were given: FastAPI leaves out every null of them."""
    for route in (route for router in routers for route in router.routes):
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            replies = document["paths"][route.path_format][method.lower()]["responses"]
            for status, reply in route.responses.items():
                for kind, content in reply.get("content", {}).items():
                    given = {name: content[name] for name in ("example", "examples") if name in content}
                    replies[str(status)]["content"][kind].update(given)


def install_docs(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Add ``/openapi.json``'s telemetry endpoint and the page ``/docs`` with its own copy of Swagger UI.

    ``routers`` are those of the application.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            telemetry = {
                path: {"post": {**_telemetry_operation(), "operationId": f"post_telemetry_{index}"}}
                for index, path in enumerate(("/api/data/v1/telemetry", "/v1/telemetry"))
            }
            for methods in document["paths"].values():
                for operation in methods.values():
                    operation["responses"].pop("422", None)  # FastAPI's own: ours is 400
            _restore_nulls(routers, document)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"].get("schemas", {}).pop(name, None)
            document["paths"] = {**telemetry, **document["paths"]}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document

    # Swagger UI comes as files of a package, so that the page needs no other host.
    static = resources.files("fastapi_offline") / "static"
    app.mount("/docs/static", StaticFiles(directory=str(static)), name="docs-static")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Midstream API",
            swagger_js_url="/docs/static/swagger-ui-bundle.js",
            swagger_css_url="/docs/static/swagger-ui.css",
            swagger_favicon_url="/docs/static/favicon.png",
            swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        )
