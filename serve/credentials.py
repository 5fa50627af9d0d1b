"""Registering a credential: an operator's service asks for an app's key, secret and token."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from midstream.logs import get_logger
from midstream.registry.credentials import Issued
from midstream.registry.errors import CredentialConflict, RegistryError, RegistryUnavailable
from midstream.request_ids import current_request_id
from serve.auth import require_operator
from serve.bodies import read_body
from serve.errors import ApiError
from serve.openapi import error_replies
from serve.services import Services, services_of

_log = get_logger(__name__)

_MAX_BODY_BYTES = 64 * 1024

router = APIRouter(tags=["credentials"], dependencies=[Depends(require_operator)])


class _Wanted(msgspec.Struct):
    key: str


class _Params(msgspec.Struct):
    msgid: str | None = None


class _Body(msgspec.Struct):
    request: _Wanted
    params: _Params | None = None


_decoder = msgspec.json.Decoder(_Body)


@router.post(
    "/api/api-manager/v1/consumer/{name}/credential/register",
    summary="Register a credential",
    description="Gives `name` the credential of `key`: its secret and a token. Repeated, it gives the same ones.",
    responses={
        200: {
            "content": {
                "application/json": {
                    "example": {
                        "id": "ekstep.api.am.adminutil.consumer.create",
                        "ver": "1.0",
                        "ts": "2023-11-14T22:13:20.000Z",
                        "params": {
                            "resmsgid": "9a0f1c1e-0000-4000-8000-000000000000",
                            "msgid": None,
                            "status": "successful",
                            "err": None,
                            "errmsg": None,
                        },
                        "result": {"key": "app-1", "secret": "(the secret)", "token": "(a token)"},
                    }
                }
            }
        },
        **error_replies(400, 401, 403, 408, 409, 413, 429, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["request"],
                        "properties": {
                            "request": {
                                "type": "object",
                                "required": ["key"],
                                "properties": {"key": {"type": "string"}},
                            }
                        },
                    },
                    "example": {"request": {"key": "app-1"}},
                }
            },
        }
    },
)
async def register_credential(
    request: Request, name: str, services: Annotated[Services, Depends(services_of)]
) -> JSONResponse:
    """Create the credential, or give the one that is there."""
    body = await read_body(
        request,
        max_bytes=_MAX_BODY_BYTES,
        max_inflated_bytes=_MAX_BODY_BYTES,
        timeout_ms=services.settings.body_timeout_ms,
    )
    try:
        asked = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "INVALID_BODY", f'expected {{"request": {{"key": KEY}}}}: {error}') from None
    try:
        issued = await asyncio.to_thread(services.register, name, asked.request.key)
    except CredentialConflict as error:
        raise ApiError(409, "CONFLICT", str(error)) from None
    except RegistryUnavailable:
        raise
    except RegistryError as error:
        raise ApiError(400, "INVALID_NAME", str(error)) from None
    _log.info("credential.registered", name=name, key=issued.key)
    msgid = asked.params.msgid if asked.params else None
    return JSONResponse(_reply(issued, msgid))


def _reply(issued: Issued, msgid: str | None) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": "ekstep.api.am.adminutil.consumer.create",
        "ver": "1.0",
        "ts": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "params": {
            "resmsgid": current_request_id(),
            "msgid": msgid,
            "status": "successful",
            "err": None,
            "errmsg": None,
        },
        "result": {"key": issued.key, "secret": issued.secret, "token": issued.token},
    }
