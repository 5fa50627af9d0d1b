"""A device registers itself, and says what has changed of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from midstream.registry.fleet.devices import InfoChange, Registration
from midstream.registry.fleet.errors import FleetError
from serve.devices.caller import DeviceId, base_url
from serve.objects import Content, Count, Mac, Name, Text, Version, read_as
from serve.openapi import device_errors, json_body, json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["devices"])

_Services = Annotated[Services, Depends(services_of)]
_REGISTRATION = {
    "sn": "SN-0001",
    "firmware_version": "1.3.4",
    "hardware_key": "(of the model)",
    "mac": "02:00:00:00:00:01",
    "name": "Hall",
}


class _Registration(msgspec.Struct):
    sn: Name
    firmware_version: Version
    hardware_key: str
    cloud_id: Text | None = None
    mac: Mac | None = None
    name: Text | None = None
    details: Content | None = None
    sub_model: Text | None = None
    parent_id: Text | None = None


class _Info(msgspec.Struct):
    firmware_version: Version | None = None
    name: Text | None = None
    sub_model: Text | None = None
    details: Content | None = None
    space_version: Count | None = None
    config_version: Count | None = None


@router.post(
    "/v1/devices",
    status_code=201,
    summary="Register a device",
    description="With the hardware key of its model (`midstream model create`). The access key is shown this once.",
    responses={
        **json_reply(201, {"id": "0b6f...", "access_key": "(the key)", "hub_url": "http://127.0.0.1:8000"}),
        **device_errors(404, 408, 413, 422, 503),
    },
    openapi_extra={"requestBody": json_body(_REGISTRATION)},
)
async def register(request: Request, services: _Services) -> JSONResponse:
    """Create the device."""
    said = await read_as(request, services, _Registration)
    if not said.cloud_id and not said.mac:
        raise FleetError("cloud_id or mac is required")
    registered = await services.control.run(
        services.control.devices.register,
        Registration(
            sn=said.sn,
            firmware_version=said.firmware_version,
            hardware_key=said.hardware_key,
            cloud_id=said.cloud_id,
            mac=said.mac,
            name=said.name or "",
            sub_model=said.sub_model or "",
            details=said.details or {},
            parent_id=said.parent_id or None,
        ),
    )
    reply: dict[str, Any] = {
        "id": registered.id,
        "access_key": registered.access_key,
        "hub_url": base_url(request, services),
    }
    return JSONResponse(reply, 201)


@router.patch(
    "/v1/devices/{device_id}",
    summary="Say what has changed of the device",
    description="Ten times an hour.",
    responses={
        **json_reply(200, {"status": True, "info_version": 2}),
        **device_errors(401, 403, 408, 413, 422, 429, 503),
    },
    openapi_extra={"requestBody": json_body({"firmware_version": "1.3.5", "name": "Stage"})},
)
async def change_info(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Keep what the device says of itself."""
    said = await read_as(request, services, _Info)
    version = await services.control.run(
        services.control.devices.change_info,
        device_id,
        InfoChange(
            firmware_version=said.firmware_version,
            name=said.name,
            sub_model=said.sub_model,
            details=said.details,
            config_version=said.config_version,
            space_version=said.space_version,
        ),
    )
    return JSONResponse({"status": True, "info_version": version})
