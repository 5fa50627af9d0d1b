"""Devices, listed and one by one, and what they are to fetch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse

from midstream.devices.report import Status
from midstream.registry.fleet.commands import CommandInfo
from midstream.registry.fleet.devices import DeviceInfo
from midstream.registry.fleet.errors import FleetError
from midstream.registry.fleet.licenses import LicenseInfo
from serve.devices.files import file_reply
from serve.fleet.operator import DeviceId, require_fleet_operator
from serve.fleet.shown import brief, in_full
from serve.fleet.store import Entry
from serve.objects import Content, LongText, Name, iso, moment_us, read_as, sought, to_moment
from serve.openapi import device_errors, json_body, json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["fleet"], dependencies=[Depends(require_fleet_operator)])

PAGE_DEVICES = 100
_SCAN_DEVICES = 500
_MAX_SCANS = 20
"""Where few devices are of the status that is sought: so many times further ones are looked at for one page, which may
be short then, or empty, and have a next one."""

_ID = re.compile(r"[0-9a-f-]{36}")
_Services = Annotated[Services, Depends(services_of)]
_READ = device_errors(401, 404, 503)
_WRITTEN = device_errors(401, 404, 408, 413, 422, 503)
_BRIEF = {
    "id": "0b6f...",
    "sn": "SN-0001",
    "name": "Hall",
    "model": "hub-100",
    "status": "online",
    "firmware_version": "1.3.4",
    "last_seen": "2026-01-31T12:00:00.000Z",
    "stale": False,
}


class _Config(msgspec.Struct):
    name: Name
    config: Content


class _Command(msgspec.Struct):
    name: Name
    parameters: Content | None = None


class _License(msgspec.Struct):
    data: LongText
    signature: LongText
    action: str
    expires_at: str | None = None


class _Claim(msgspec.Struct):
    space: Content


@router.get(
    "/v1/fleet/devices",
    summary="Devices, page by page",
    description="`q` stands in the name or begins the serial number. `page` is the `next` of the page before. With "
    "`status` or `stale` a page may be short and have a next one all the same.",
    responses={**json_reply(200, {"devices": [_BRIEF], "next": None}), **device_errors(401, 422, 503)},
)
async def list_devices(
    services: _Services,
    q: Annotated[str, Query(max_length=256)] = "",
    status: Annotated[Status | Literal[""], Query()] = "",
    model: Annotated[str, Query(max_length=128)] = "",
    stale: Annotated[Literal["", "true", "false"], Query()] = "",
    page: Annotated[str, Query(max_length=64)] = "",
) -> JSONResponse:
    """Answer with one page."""
    if page and _ID.fullmatch(page) is None:
        raise FleetError("page must be the next of the page before")
    if "\x00" in q or "\x00" in model:
        return JSONResponse({"devices": [], "next": None})

    def matches(shown: dict[str, Any]) -> bool:
        return status in ("", shown["status"]) and stale in ("", str(shown["stale"]).lower())

    devices, following = await _page(services, q, model, page, matches, scan=bool(status or stale))
    return JSONResponse({"devices": devices, "next": following})


async def _page(
    services: Services, text: str, model: str, after: str, matches: Callable[[dict[str, Any]], bool], *, scan: bool
) -> tuple[list[dict[str, Any]], str | None]:
    size = _SCAN_DEVICES if scan else PAGE_DEVICES + 1
    found: list[dict[str, Any]] = []
    for _ in range(_MAX_SCANS):
        infos = await services.control.run(
            services.control.devices.page, text=text, model=model, after=after, limit=size
        )
        said = await _statuses(services, [info.id for info in infos])
        now = datetime.now(UTC)
        for info in infos:
            if len(found) == PAGE_DEVICES:
                return found, after
            after = info.id
            shown = brief(info, said.get(info.id), now)
            if matches(shown):
                found.append(shown)
        if len(infos) < size:
            return found, None
    return found, after


async def _statuses(services: Services, device_ids: list[str]) -> Mapping[str, Entry]:
    return await services.device_store.run(lambda store: store.statuses(device_ids)) if device_ids else {}


@router.get(
    "/v1/fleet/devices/{device_id}",
    summary="One device, in full",
    responses={**json_reply(200, _BRIEF), **_READ},
)
async def get_device(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the device and its configuration."""
    info = await device_info(services, device_id)
    config = await services.control.run(services.control.configs.get, device_id)
    said = (await _statuses(services, [device_id])).get(device_id)
    shown = in_full(info, said, datetime.now(UTC))
    return JSONResponse({**shown, "config": {"name": config.name, "at": iso(config.at), "content": config.content}})


async def device_info(services: Services, device_id: str) -> DeviceInfo:
    """Return a device; 404 when there is no such one."""
    return await services.control.run(services.control.devices.get, device_id)


@router.put(
    "/v1/fleet/devices/{device_id}/config",
    summary="Set what a device is to apply",
    responses={**json_reply(200, {"name": "day", "version": 3}), **_WRITTEN},
    openapi_extra={"requestBody": json_body({"name": "day", "config": {"volume": 5}})},
)
async def put_config(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the new version."""
    said = await read_as(request, services, _Config)
    version = await services.control.run(services.control.configs.set, device_id, said.name, said.config)
    return JSONResponse({"name": said.name, "version": version})


@router.post(
    "/v1/fleet/devices/{device_id}/commands",
    status_code=201,
    summary="Give a device a command",
    responses={**json_reply(201, {"id": "5d0c...", "name": "reboot", "status": "pending"}), **_WRITTEN},
    openapi_extra={"requestBody": json_body({"name": "reboot", "parameters": {}})},
)
async def post_command(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the command."""
    said = await read_as(request, services, _Command)
    given = await services.control.run(services.control.commands.give, device_id, said.name, said.parameters or {})
    return JSONResponse(_command(given), 201)


@router.get(
    "/v1/fleet/devices/{device_id}/commands",
    summary="What a device was told to do, newest first",
    responses={
        **json_reply(200, {"commands": [{"id": "5d0c...", "name": "reboot", "status": "done", "message": ""}]}),
        **_READ,
    },
)
async def get_commands(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the newest 1,000."""
    await device_info(services, device_id)
    given = await services.control.run(services.control.commands.history, device_id)
    return JSONResponse({"commands": [_command(one) for one in given]})


def _command(one: CommandInfo) -> dict[str, Any]:
    return {
        "id": one.id,
        "device_id": one.device_id,
        "name": one.name,
        "parameters": one.parameters,
        "status": one.status,
        "message": one.message,
        "created_at": iso(one.created_at),
        "started_at": iso(one.started_at),
        "ended_at": iso(one.ended_at),
    }


@router.post(
    "/v1/fleet/devices/{device_id}/licenses",
    status_code=201,
    summary="Give a device a licence",
    responses={**json_reply(201, {"id": "77aa...", "state": None}), **_WRITTEN},
    openapi_extra={"requestBody": json_body({"data": "...", "signature": "...", "action": "add"})},
)
async def post_license(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the licence."""
    said = await read_as(request, services, _License)
    expires_us = moment_us(said.expires_at, "expires_at")
    given = await services.control.run(
        services.control.licenses.give,
        device_id,
        said.data,
        said.signature,
        said.action,
        None if expires_us is None else to_moment(expires_us),
    )
    return JSONResponse(_license(given), 201)


@router.get(
    "/v1/fleet/devices/{device_id}/licenses",
    summary="A device's licences, newest first",
    description="`state` is null until the device has reported.",
    responses={**json_reply(200, {"licenses": [{"id": "77aa...", "state": None}]}), **_READ},
)
async def get_licenses(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the newest 1,000."""
    await device_info(services, device_id)
    given = await services.control.run(services.control.licenses.list_all, device_id)
    return JSONResponse({"licenses": [_license(one) for one in given]})


@router.get(
    "/v1/fleet/devices/{device_id}/licenses/{license_id}/history",
    summary="All that a device said of a licence, oldest first",
    responses={**json_reply(200, {"history": [{"state": "inuse", "error": "", "at": "..."}]}), **_READ},
)
async def get_license_history(services: _Services, device_id: DeviceId, license_id: str) -> JSONResponse:
    """Answer with its steps."""
    steps = await services.control.run(services.control.licenses.history, device_id, sought(license_id))
    return JSONResponse({"history": [{"state": one.state, "error": one.error, "at": iso(one.at)} for one in steps]})


def _license(one: LicenseInfo) -> dict[str, Any]:
    return {
        "id": one.id,
        "data": one.data,
        "signature": one.signature,
        "action": one.action,
        "expires_at": iso(one.expires_at),
        "state": one.state,
        "error": one.error,
        "created_at": iso(one.created_at),
        "reported_at": iso(one.reported_at),
    }


@router.post(
    "/v1/fleet/devices/{device_id}/claim",
    summary="Say what a device is for",
    responses={**json_reply(200, {"space_data_version": 1}), **_WRITTEN},
    openapi_extra={"requestBody": json_body({"space": {"room": "B2"}})},
)
async def post_claim(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the version of its space."""
    said = await read_as(request, services, _Claim)
    version = await services.control.run(services.control.devices.claim, device_id, said.space)
    return JSONResponse({"space_data_version": version})


@router.post(
    "/v1/fleet/devices/{device_id}/revoke",
    summary="End a device's access",
    description="Within a second, in every process. Done again, it changes nothing.",
    responses={**json_reply(200, {"revoked": True}), **_READ},
)
async def post_revoke(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Revoke its key."""
    await services.control.run(services.control.devices.revoke, device_id)
    return JSONResponse({"revoked": True})


@router.get(
    "/v1/fleet/devices/{device_id}/events",
    summary="What a device told of, newest first",
    responses={**json_reply(200, {"events": [{"at": "...", "event": {"type": "door"}}]}), **_READ},
)
async def get_events(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with the newest 100."""
    await device_info(services, device_id)
    events = await services.control.run(services.control.told.events, device_id)
    return JSONResponse({"events": [{"at": iso(one.at), "event": one.content} for one in events]})


@router.get(
    "/v1/fleet/devices/{device_id}/dumps",
    summary="A device's diagnostic files, newest first",
    responses={**json_reply(200, {"dumps": [{"id": "d0d0...", "at": "...", "size": 5, "checksum": "..."}]}), **_READ},
)
async def get_dumps(services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with what there is."""
    await device_info(services, device_id)
    dumps = await services.control.run(services.control.told.dumps, device_id)
    return JSONResponse(
        {
            "dumps": [
                {"id": one.id, "at": iso(one.at), "size": one.size_bytes, "checksum": one.checksum} for one in dumps
            ]
        }
    )


@router.get(
    "/v1/fleet/devices/{device_id}/dumps/{dump_id}",
    summary="A diagnostic file's bytes",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **_READ},
)
async def get_dump(services: _Services, device_id: DeviceId, dump_id: str) -> FileResponse:
    """Answer with the bytes."""
    dump = await services.control.run(services.control.told.dump, device_id, sought(dump_id))
    return await file_reply(services.control.dumps, dump.id, f"{dump.id}.dump")
