"""Files for devices, and what devices send besides their reports: events and diagnostic files."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, JSONResponse

from midstream.registry.fleet.files import FileInfo
from midstream.registry.fleet.told import DumpInfo
from serve.devices.caller import DeviceId, base_url
from serve.errors import ApiError
from serve.objects import read_content, sought
from serve.openapi import device_errors, json_body, json_reply
from serve.services import Services, services_of
from serve.uploads import Folder

router = APIRouter(tags=["devices"])

_Services = Annotated[Services, Depends(services_of)]
_READ = device_errors(401, 403, 404, 503)
_MAX_EVENT_BYTES = 64 * 1024
_FILE = {
    "id": "c0de...",
    "name": "image.bin",
    "url": "http://127.0.0.1:8000/v1/devices/0b6f.../files/c0de.../content",
    "desc": "",
    "file_type": "firmware",
    "version": "1.3.4",
    "checksum": "(SHA-256, hex)",
    "signature": "",
}


@router.get(
    "/v1/devices/{device_id}/files",
    summary="The files that the device is offered",
    responses={**json_reply(200, [_FILE]), **device_errors(401, 403, 503)},
)
async def get_files(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Answer with all of them, newest first."""
    found = await services.control.run(services.control.files.of_device, device_id)
    base = base_url(request, services)
    return JSONResponse([_reply(base, device_id, file) for file in found])


@router.get(
    "/v1/devices/{device_id}/files/{file_id}",
    summary="One of the files that the device is offered",
    responses={**json_reply(200, _FILE), **_READ},
)
async def get_file(request: Request, services: _Services, device_id: DeviceId, file_id: str) -> JSONResponse:
    """Answer with what is to be known of it."""
    file = await services.control.run(services.control.files.get, device_id, sought(file_id))
    return JSONResponse(_reply(base_url(request, services), device_id, file))


def _reply(base: str, device_id: str, file: FileInfo) -> dict[str, Any]:
    return {
        "id": file.id,
        "name": file.name,
        "url": f"{base}/v1/devices/{device_id}/files/{file.id}/content",
        "desc": file.description,
        "file_type": file.file_type,
        "version": file.version,
        "checksum": file.checksum,
        "signature": file.signature,
    }


@router.get(
    "/v1/devices/{device_id}/files/{file_id}/content",
    summary="A file's bytes",
    description="Ranges may be asked for, so that a download goes on where it broke off.",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **_READ},
)
async def get_file_content(services: _Services, device_id: DeviceId, file_id: str) -> FileResponse:
    """Answer with the bytes."""
    file = await services.control.run(services.control.files.get, device_id, sought(file_id))
    return await file_reply(services.control.firmware, file.id, file.name)


async def file_reply(folder: Folder, id_: str, name: str) -> FileResponse:
    """Return the reply that is a file's bytes.

    Raises:
        ApiError: 503, they cannot be read here.
    """
    path = folder.path_of(id_)
    if not await asyncio.to_thread(path.is_file):
        raise ApiError(503, "FILE_UNAVAILABLE", "the file cannot be read now; try again")
    return FileResponse(path, media_type="application/octet-stream", filename=name)


@router.post(
    "/v1/devices/{device_id}/events",
    summary="Tell of an event",
    description="Any object. The newest 100 of a device are kept.",
    responses={**json_reply(200, {"status": True}), **device_errors(401, 403, 408, 413, 422, 503)},
    openapi_extra={"requestBody": json_body({"type": "door", "open": True})},
)
async def post_event(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Keep the event."""
    content = await read_content(request, services, _MAX_EVENT_BYTES)
    await services.control.run(services.control.told.add_event, device_id, content)
    return JSONResponse({"status": True})


@router.post(
    "/v1/devices/{device_id}/dumps",
    summary="Send a diagnostic file",
    description="The body is the file. The newest five of a device are kept.",
    responses={**json_reply(200, {"status": True}), **device_errors(401, 403, 408, 413, 503)},
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def post_dump(request: Request, services: _Services, device_id: DeviceId) -> JSONResponse:
    """Keep the file."""
    control, settings = services.control, services.settings
    async with control.dumps.receive(
        request, max_bytes=settings.max_dump_bytes, timeout_ms=settings.body_timeout_ms
    ) as uploaded:
        dump = DumpInfo(uploaded.id, uploaded.checksum, uploaded.size_bytes, datetime.now(UTC))
        gone = await control.run(control.told.add_dump, device_id, dump, settings.dumps_bytes)
    await asyncio.to_thread(control.dumps.remove, gone)
    return JSONResponse({"status": True})
