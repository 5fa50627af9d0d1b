"""Models and their files: firmware is uploaded here, and offered to more and more devices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse

from midstream.registry.fleet.errors import FleetError
from midstream.registry.fleet.files import FIRMWARE, FileInfo
from serve.fleet.operator import require_fleet_operator
from serve.objects import iso, read_as, sought
from serve.openapi import device_errors, json_body, json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["fleet"], dependencies=[Depends(require_fleet_operator)])

_Services = Annotated[Services, Depends(services_of)]
_FILE = {
    "id": "c0de...",
    "name": "image.bin",
    "version": "1.3.4",
    "checksum": "(SHA-256, hex)",
    "size": 1048576,
    "rollout_percent": 100,
}


def model_of_path(model: Annotated[str, Path(description="The model's name.")]) -> str:
    """Return the name that the path has."""
    return sought(model)


_Model = Annotated[str, Depends(model_of_path)]


class _Rollout(msgspec.Struct):
    rollout_percent: int


@router.get(
    "/v1/fleet/models",
    summary="All models",
    responses={**json_reply(200, {"models": [{"name": "hub-100", "interval_s": 60}]}), **device_errors(401, 503)},
)
async def get_models(services: _Services) -> JSONResponse:
    """Answer with the models by name."""
    models = await services.control.run(services.control.models.list_all)
    return JSONResponse(
        {
            "models": [
                {"name": one.name, "interval_s": one.interval_s, "created_at": iso(one.created_at)} for one in models
            ]
        }
    )


@router.post(
    "/v1/fleet/models/{model}/files",
    status_code=201,
    summary="Give the devices of a model a file",
    description="The body is the file. The firmware of the highest version (Semantic Versioning) that a device is "
    "offered is its latest. `rollout_percent` of the devices are offered it; those that are stay so when it grows.",
    responses={**json_reply(201, _FILE), **device_errors(401, 404, 408, 413, 422, 503)},
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def post_file(
    request: Request,
    services: _Services,
    model: _Model,
    version: Annotated[str, Query(max_length=128)],
    name: Annotated[str, Query(min_length=1, max_length=256)],
    desc: Annotated[str, Query(max_length=10_000)] = "",
    file_type: Annotated[str, Query(min_length=1, max_length=32, pattern=r"^[a-z0-9_-]+$")] = FIRMWARE,
    signature: Annotated[str, Query(max_length=10_000)] = "",
    rollout_percent: Annotated[int, Query(ge=0, le=100)] = 100,
) -> JSONResponse:
    """Keep the file and answer with what is known of it."""
    control, settings = services.control, services.settings
    if any("\x00" in text for text in (version, name, desc, signature)):
        raise FleetError("No text may have a NUL")
    await control.run(control.files.check, model, file_type, version, rollout_percent)  # before all of it came
    async with control.firmware.receive(
        request, max_bytes=settings.max_device_file_bytes, timeout_ms=settings.body_timeout_ms
    ) as uploaded:
        if not uploaded.size_bytes:
            raise FleetError("The body is empty: it must be the file")
        file = FileInfo(
            id=uploaded.id,
            name=name,
            description=desc,
            file_type=file_type,
            version=version,
            checksum=uploaded.checksum,
            signature=signature,
            size_bytes=uploaded.size_bytes,
            rollout_percent=rollout_percent,
            created_at=datetime.now(UTC),
        )
        await control.run(control.files.add, model, file)
    return JSONResponse(_shown(file), 201)


@router.get(
    "/v1/fleet/models/{model}/files",
    summary="A model's files, newest first",
    responses={**json_reply(200, {"files": [_FILE]}), **device_errors(401, 404, 503)},
)
async def get_files(services: _Services, model: _Model) -> JSONResponse:
    """Answer with all of them."""
    files = await services.control.run(services.control.files.list_all, model)
    return JSONResponse({"files": [_shown(one) for one in files]})


@router.patch(
    "/v1/fleet/models/{model}/files/{file_id}",
    summary="Offer a file to more devices, or to fewer",
    responses={**json_reply(200, _FILE), **device_errors(401, 404, 408, 413, 422, 503)},
    openapi_extra={"requestBody": json_body({"rollout_percent": 50})},
)
async def patch_file(request: Request, services: _Services, model: _Model, file_id: str) -> JSONResponse:
    """Set the share and answer with the file."""
    said = await read_as(request, services, _Rollout)
    files = services.control.files
    file = await services.control.run(files.set_rollout, model, sought(file_id), said.rollout_percent)
    return JSONResponse(_shown(file))


def _shown(file: FileInfo) -> dict[str, Any]:
    return {
        "id": file.id,
        "name": file.name,
        "desc": file.description,
        "file_type": file.file_type,
        "version": file.version,
        "checksum": file.checksum,
        "signature": file.signature,
        "size": file.size_bytes,
        "rollout_percent": file.rollout_percent,
        "created_at": iso(file.created_at),
    }
