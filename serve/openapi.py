"""The OpenAPI document and its page, which works without the internet."""

from __future__ import annotations

import base64
import hashlib
import re
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
objects that events speak of to `/v1/dimensions`; apps register their device at `/v3/device`. Every call but the probes
needs `Authorization: Bearer TOKEN`, which `midstream token create NAME` prints. Devices call `/v1/devices` with the
access key that registering gave them; operators follow them at `/v1/fleet`. Learning platforms keep learners' records
at `/v1/assignment`, with users' tokens. Partners download the raw events that are theirs, day by day, from
`/v1/datasets`, with a licence key.
`/api/data/v1/index/sync` makes ClickHouse agree with where those objects come from; `/v1/sync` tells how far it is.
"""

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
}
_DEVICE_ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
MEANINGS = {
    400: "What no retry can mend.",
    401: "No token, or a bad one.",
    403: "The token's credential may not do this.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It is taken, or it is too late.",
    413: "Larger than the limit.",
    415: "An encoding that cannot be read.",
    422: "What no retry can mend.",
    429: "More often than allowed; see Retry-After.",
    503: "Full, or a part is away; see Retry-After.",
}


def error_replies(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for these statuses."""
    return {
        status: {
            "description": MEANINGS[status],
            "content": {"application/json": {"schema": _ERROR_SCHEMA}},
        }
        for status in statuses
    }


def device_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route of the device API for these statuses."""
    return {
        status: {
            "description": MEANINGS[status],
            "content": {"application/json": {"schema": _DEVICE_ERROR_SCHEMA}},
        }
        for status in statuses
    }


def json_reply(status: int, example: Any) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for its good reply."""
    return {status: {"content": {"application/json": {"example": example}}}}


def json_body(example: dict[str, Any]) -> dict[str, Any]:
    """Return the ``requestBody`` of an object."""
    return {"required": True, "content": {"application/json": {"schema": {"type": "object"}, "example": example}}}


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
            **{str(status): reply(MEANINGS[status]) for status in (400, 401, 403, 408, 413, 415, 429, 503)},
        },
    }


_REPORT = {"status": "online", "timestamp": "2026-01-31T12:00:00Z", "telemetries": {"temp": 21.5, "on": True}}
_FLAGS = {
    "success": True,
    "config_version": 3,
    "command": False,
    "new_licenses": False,
    "info_version": 1,
    "latest_fw_version": "1.3.4",
    "latest_fw_file_id": "c0de...",
    "space_data_version": 0,
}


def _report_operations() -> dict[str, Any]:
    """Describe the collector's endpoints of the device API."""
    return {
        "/v1/devices/{device_id}/telemetry": {
            "post": {
                "tags": ["devices"],
                "summary": "Report the device's state",
                "description": "A 200 means that the report is durable. A null removes a key; `override` replaces the "
                "whole state. The reply says what there is to fetch.",
                "operationId": "post_device_telemetry",
                "security": [{"device": []}],
                "parameters": [{"name": "device_id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "requestBody": json_body(_REPORT),
                "responses": _responses(_FLAGS, 401, 403, 408, 413, 422, 429, 503),
            }
        },
        "/v1/devices/telemetry": {
            "post": {
                "tags": ["devices"],
                "summary": "Report the states of up to 100 devices",
                "description": "One bad entry does not fail the rest.",
                "operationId": "post_devices_telemetry",
                "requestBody": json_body({"0b6f...": {"access_token": "(its key)", **_REPORT}}),
                "responses": _responses({"0b6f...": _FLAGS}, 408, 413, 422, 503),
            }
        },
    }


def _responses(example: dict[str, Any], *errors: int) -> dict[str, Any]:
    replies = {**json_reply(200, example), **device_errors(*errors)}
    replies[200]["description"] = "Durable."
    return {str(status): reply for status, reply in replies.items()}


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
                    if "HTTPValidationError" in str(operation["responses"].get("422")):
                        del operation["responses"]["422"]  # FastAPI's own: ours is 400, or of another form
            _restore_nulls(routers, document)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"].get("schemas", {}).pop(name, None)
            document["paths"] = {**telemetry, **_report_operations(), **document["paths"]}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document

    # Swagger UI comes as files of a package, so that the page needs no other host.
    static = resources.files("fastapi_offline") / "static"
    app.mount("/docs/static", StaticFiles(directory=str(static)), name="docs-static")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Midstream API",
            swagger_js_url="/docs/static/swagger-ui-bundle.js",
            swagger_css_url="/docs/static/swagger-ui.css",
            swagger_favicon_url="/docs/static/favicon.png",
            swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        )
        page.headers.update(_page_headers(bytes(page.body).decode()))
        return page


def _page_headers(html: str) -> dict[str, str]:
    """Return what keeps a browser to our own files, and to the scripts that stand in this page."""
    inline = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    scripts = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in inline]
    policy = (
        f"default-src 'none'; script-src 'self' {' '.join(scripts)}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    return {"Content-Security-Policy": policy, "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
