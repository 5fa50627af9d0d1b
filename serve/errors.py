"""Errors of the API: always JSON with a code and a message, never a traceback."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from midstream.logs import get_logger
from midstream.registry.errors import RegistryUnavailable, Unauthorized
from midstream.registry.fleet.errors import FleetError
from midstream.request_log import RequestLog
from serve.assignments.refused import RefusedError
from serve.exhaust.envelope import INTERNAL, INVALID_DATA, envelope
from serve.register.envelope import ROOT, error_body
from serve.sync.envelope import PATH as _SYNC
from serve.sync.envelope import refusal

_log = get_logger(__name__)

_RETRY_AFTER_S = 2
_DEVICES = "/v1/devices"
_FLEET = "/v1/fleet"
_ASSIGNMENTS = "/v1/assignment"
_EXHAUST = ("/v1/datasets", "/v1/dataset")
_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class ApiError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        code: a constant that a program may compare.
        message: a sentence for a person.
        retry_after_s: when to try again, of a 429 or 503.
        details: more members of the reply's object.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: int = _RETRY_AFTER_S, **details: Any
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.code = code
        self.message = message
        self.details = details


def error_reply(status: int, code: str, message: str, **details: Any) -> JSONResponse:
    """Make the reply of a refused request; 503 and 429 say when to try again."""
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"code": code, "message": message, **details}, status, headers)


def _reply(request: Request, status: int, code: str, message: str, **details: Any) -> JSONResponse:
    """Make a reply in the form of the API that was called: devices and their operators read ``error`` alone, learning
    platforms ``detail`` and ``status_code``, partners, who registers a device and who asks for a sync an envelope."""
    reply = error_reply(status, code, message, **details)
    path = request.url.path
    headers = {name: value for name, value in reply.headers.items() if name in ("retry-after", "www-authenticate")}
    if _is_under(path, _DEVICES, _FLEET):
        if path.startswith(_DEVICES):
            headers.pop("www-authenticate", None)  # their key has no scheme
        return JSONResponse({"error": message}, status, headers)
    if _is_under(path, _ASSIGNMENTS):
        return JSONResponse({"detail": message, "status_code": status}, status, headers)
    if _is_under(path, _SYNC):
        if code == "REGISTRY_UNAVAILABLE":
            status = 500  # what its clients know; the header says when to try again, all the same
        return JSONResponse(refusal(request.headers, status, code, message), status, headers)
    if _is_under(path, *_EXHAUST):
        return JSONResponse(
            envelope("", err=INVALID_DATA if status < 500 else INTERNAL, errmsg=message), status, headers
        )
    if _is_under(path, ROOT):
        return JSONResponse(error_body(path, status, code, message, **details), status, headers)
    return reply


def _is_under(path: str, *starts: str) -> bool:
    return any(path == start or path.startswith(f"{start}/") for start in starts)


def install_error_handlers(app: FastAPI) -> None:
    """Turn every exception of a request into its reply."""
    request_log = RequestLog()

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        reply = _reply(request, error.status, error.code, error.message, **error.details)
        if "retry-after" in reply.headers:
            reply.headers["retry-after"] = str(error.retry_after_s)
        return reply

    @app.exception_handler(RefusedError)
    async def refused_as_said(_: Request, error: RefusedError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(Unauthorized)
    async def unauthorized(request: Request, error: Unauthorized) -> Response:
        request_log.refuse(request.url.path, error.reason)
        return _reply(request, 401, "UNAUTHORIZED", "Unauthorized")

    @app.exception_handler(FleetError)
    async def fleet_refused(request: Request, error: FleetError) -> Response:
        return _reply(request, error.status, type(error).__name__, str(error))

    @app.exception_handler(RegistryUnavailable)
    async def registry_away(request: Request, error: RegistryUnavailable) -> Response:
        _log.warning("registry.unavailable", reason=str(error))
        return _reply(request, 503, "REGISTRY_UNAVAILABLE", "the registry cannot be used now; try again")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        status = 422 if _is_under(request.url.path, _DEVICES, _FLEET) else 400
        return _reply(request, status, "INVALID_REQUEST", f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, f"HTTP_{error.status_code}")
        message = {
            404: f"there is nothing at {request.url.path[:200]}",
            405: f"{request.url.path[:200]} does not take {request.method[:20]}",
        }.get(error.status_code, str(error.detail))
        reply = _reply(request, error.status_code, code, message)
        reply.headers.update(error.headers or {})
        return reply

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # Starlette raises the error again after this reply, so that the server logs it with its traceback.
        return _reply(request, 500, "INTERNAL_ERROR", "the request failed through no fault of its own; see the log")
