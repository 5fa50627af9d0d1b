"""What the flags of a reply point to: configuration, command, licences, space."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from midstream.registry.fleet.configs import Config
from midstream.registry.fleet.licenses import LicenseInfo
from serve.devices.caller import DeviceId
from serve.objects import Content, Count, LongText, iso, read_as, sought
from serve.openapi import device_errors, json_body, json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["devices"])

_Services = Annotated[Services, Depends(services_of)]
_READ = device_errors(401, 403, 503)
_WRITTEN = {**json_reply(200, {"status": True}), **device_errors(401, 403, 404, 408, 413, 422, 503)}


class _Applied(msgspec.Struct):
    version: Count
    config: Content


class _Progress(msgspec.Struct):
    status: str
    message: LongText | None = None
    id: str | None = None


class _LicenseReport(msgspec.Struct):
    id: str
    state: str
    error: LongText | None = None


@router.get(
    "/v1/devices/{device_id}/config",
    summary="The configuration that the device is to apply",
    responses={
        **json_reply(
            200,
            {
                "name": "day",
                "version": 3,
                "last_updated": "2026-01-31T12:00:00.000Z",
                "config": {"volume": 5},
                "device_id": "0b6f...",
            },
        ),
        **_READ,
    },
)
async def get_config(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the current one."""
    return JSONResponse(config_reply(device_id, await services.control.run(services.control.configs.get, device_id)))


def config_reply(device_id: str, config: Config) -> dict[str, Any]:
    """Return a configuration as devices read it."""
    return {
        "name": config.name,
        "version": config.version,
        "last_updated": iso(config.at),
        "config": config.content,
        "device_id": device_id,
    }


@router.post(
    "/v1/devices/{device_id}/config",
    summary="Say which configuration was applied",
    description="With the version that it is based on. It moves no version.",
    responses=_WRITTEN,
    openapi_extra={"requestBody": json_body({"version": 3, "config": {"volume": 5}})},
)
async def post_config(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Keep what the device applied."""
    said = await read_as(request, services, _Applied)
    await services.control.run(services.control.configs.report, device_id, said.version, said.config)
    return JSONResponse({"status": True})


@router.get(
    "/v1/devices/{device_id}/command",
    summary="The command that the device is to do",
    description="The oldest that has not ended; `{}` when there is none. To look changes nothing.",
    responses={
        **json_reply(
            200,
            {"id": "5d0c...", "device_id": "0b6f...", "status": "pending", "name": "reboot", "parameters": {}},
        ),
        **_READ,
    },
)
async def get_command(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the oldest unfinished command."""
    command = await services.control.run(services.control.commands.oldest, device_id)
    if command is None:
        return JSONResponse({})
    return JSONResponse(
        {
            "id": command.id,
            "device_id": command.device_id,
            "status": command.status,
            "name": command.name,
            "parameters": command.parameters,
        }
    )


@router.post(
    "/v1/devices/{device_id}/command",
    summary="Say how far a command is",
    description="`in_progress`, `done` or `failed`; without `id` of the oldest that has not ended. Of many equal posts "
    "one is 200.",
    responses=_WRITTEN,
    openapi_extra={"requestBody": json_body({"status": "done", "message": "rebooted"})},
)
async def post_command(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Move a command on."""
    said = await read_as(request, services, _Progress)
    id_ = None if said.id is None else sought(said.id)
    await services.control.run(services.control.commands.report, device_id, said.status, said.message or "", id_)
    return JSONResponse({"status": True})


@router.get(
    "/v1/devices/{device_id}/licenses",
    summary="Licences that the device has said nothing of",
    responses={
        **json_reply(
            200,
            [
                {
                    "id": "77aa...",
                    "data": "...",
                    "signature": "...",
                    "action": "add",
                    "add": True,
                    "expires_at": "2030-01-01T00:00:00.000Z",
                }
            ],
        ),
        **_READ,
    },
)
async def get_licenses(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with those that wait."""
    waiting = await services.control.run(services.control.licenses.waiting, device_id)
    return JSONResponse([_license(one) for one in waiting])


def _license(one: LicenseInfo) -> dict[str, Any]:
    return {
        "id": one.id,
        "data": one.data,
        "signature": one.signature,
        "action": one.action,
        one.action: True,  # a known agent reads only that
        "expires_at": iso(one.expires_at),
    }


@router.post(
    "/v1/devices/{device_id}/licenses",
    summary="Say what became of a licence",
    responses=_WRITTEN,
    openapi_extra={"requestBody": json_body({"id": "77aa...", "state": "inuse"})},
)
async def post_license(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Keep the state of a licence."""
    said = await read_as(request, services, _LicenseReport)
    await services.control.run(
        services.control.licenses.report, device_id, sought(said.id), said.state, said.error or ""
    )
    return JSONResponse({"status": True})


@router.get(
    "/v1/devices/{device_id}/space",
    summary="What the device was claimed for",
    description="`space` null and version 0: by nobody.",
    responses={**json_reply(200, {"space_data_version": 1, "space": {"room": "B2"}}), **_READ},
)
async def get_space(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the space."""
    info = await services.control.run(services.control.devices.get, device_id)
    return JSONResponse({"space_data_version": info.space_version, "space": info.space})
