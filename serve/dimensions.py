"""``/v1/dimensions``: push dimension rows, one or many, and read one back.

A 200 means that Kafka has acknowledged the row with ``acks=all``; the workers of ``store`` see it at once,
ClickHouse some moments later. Rows of one object are ordered by version alone, so any request may be repeated.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import (
    MAX_ID_BYTES,
    MAX_VERSION,
    Dimension,
    DimensionError,
    DimensionType,
    make_dimension,
    max_line_bytes,
    parse_row,
)
from midstream.kafka.dimension_publisher import PublishError
from midstream.logs import get_logger
from midstream.metrics import DIMENSION_ROWS
from midstream.registry.auth import Principal
from midstream.registry.errors import RegistryUnavailable
from serve.auth import require_operator
from serve.bodies import body_lines, read_body
from serve.errors import ApiError
from serve.openapi import error_replies, json_reply
from serve.path_ids import decode_id
from serve.services import Services, services_of
from serve.sync.routes import begin_deletion, refuse_erased

_log = get_logger(__name__)

MAX_ERRORS_SHOWN = 100

router = APIRouter(tags=["dimensions"], dependencies=[Depends(require_operator)])

_Services = Annotated[Services, Depends(services_of)]
_OBJECT = {"type": "object", "additionalProperties": True}
_BULK_DESCRIPTION = f"""\
JSON lines (gzip too), read as they come: `{{"id", "attributes", "version"?}}`. A line that cannot be taken costs only
itself; the first {MAX_ERRORS_SHOWN} are named. When the reply is no 200, its `accepted` rows are stored all the same,
and the request may be repeated as it is."""
_BULK_EXAMPLE = """\
{"id":"u1","attributes":{"state":"Karnataka"}}
{"id":"u2","attributes":{},"version":7}
"""
_EXAMPLE = {"state": "Karnataka", "district": "Mysuru", "board": "State", "roles": ["student"]}


def dimension_type(type: Annotated[str, Path(json_schema_extra={"enum": [*DimensionType]})]) -> DimensionType:
    """Return the type that the path names.

    Raises:
        ApiError: 404 for another.
    """
    try:
        return DimensionType(type)
    except ValueError:
        known = ", ".join(DimensionType)
        raise ApiError(404, "UNKNOWN_TYPE", f"{type[:100]!r} is no dimension type: {known}") from None


def object_id(
    request: Request,
    id: Annotated[
        str,
        Path(
            description="The object's id, URL-encoded; it may hold slashes.",
            json_schema_extra={"minLength": 1, "maxLength": MAX_ID_BYTES},
        ),
    ],
) -> str:
    """Return the id that ends the path, URL-decoded once; slashes in it may be written either way.

    Raises:
        ApiError: 400 when it is no text in UTF-8, empty or too long.
    """
    return decode_id(request, 3)


_Type = Annotated[DimensionType, Depends(dimension_type)]
_Id = Annotated[str, Depends(object_id)]


@router.put(
    "/v1/dimensions/{type}/{id:path}",
    summary="Put one object's attributes",
    description="The body is the attributes, a JSON object (gzip too); they replace those of a lower version.",
    responses={
        200: {"content": {"application/json": {"example": {"type": "user", "id": "u1", "version": 1700000000000}}}},
        **error_replies(400, 401, 403, 404, 408, 409, 413, 415, 429, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _OBJECT, "example": _EXAMPLE}},
        }
    },
)
async def put_dimension(
    request: Request,
    services: _Services,
    type_: _Type,
    id_: _Id,
    version: Annotated[
        int | None, Query(ge=0, le=MAX_VERSION, description="Absent: the time now in epoch milliseconds.")
    ] = None,
) -> JSONResponse:
    """Publish one row and answer with its version."""
    limit = services.settings.max_dimension_bytes
    body = await read_body(
        request, max_bytes=limit, max_inflated_bytes=limit, timeout_ms=services.settings.body_timeout_ms
    )
    await refuse_erased(services, type_, id_)
    try:
        row = make_dimension(type_, id_, body, services.clock.next(id_) if version is None else version, limit)
    except DimensionError as error:
        DIMENSION_ROWS.labels(type_, "refused").inc()
        raise ApiError(413 if error.code == "TOO_LARGE" else 400, error.code, str(error)) from None
    try:
        await services.publisher.publish(row)
    except PublishError as error:
        raise _kafka_away(error) from None
    DIMENSION_ROWS.labels(type_, "accepted").inc()
    return JSONResponse({"type": type_, "id": id_, "version": row.version})


@router.post(
    "/v1/dimensions/{type}",
    summary="Put many objects",
    description=_BULK_DESCRIPTION,
    responses={
        200: {
            "content": {
                "application/json": {
                    "example": {
                        "accepted": 2,
                        "refused": 1,
                        "errors": [{"line": 2, "code": "INVALID_JSON", "message": "the line is not JSON: ..."}],
                    }
                }
            }
        },
        **error_replies(400, 401, 403, 404, 408, 415, 429, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-ndjson": {
                    "schema": {"type": "string"},
                    "example": _BULK_EXAMPLE,
                }
            },
        }
    },
)
async def post_dimensions(request: Request, services: _Services, type_: _Type) -> JSONResponse:
    """Publish the rows of a body and answer with their number."""
    if services.bulk_slots.locked():
        raise ApiError(503, "BUSY", "as many bulk loads as this process takes are under way; try again")
    async with services.bulk_slots:
        load = _BulkLoad(services, type_)
        try:
            await load.run(request)
        except PublishError as error:
            raise _kafka_away(error, **load.counts()) from None
        except ApiError as error:
            # What was read before is on its way: the reply says how much of it is stored.
            error.details = await load.settle()
            raise
        except RegistryUnavailable as error:
            _log.warning("registry.unavailable", reason=str(error))
            message = "the registry cannot be used now; try again"
            raise ApiError(503, "REGISTRY_UNAVAILABLE", message, **await load.settle()) from None
        return JSONResponse(load.counts())


class _BulkLoad:
    def __init__(self, services: Services, type_: DimensionType) -> None:
        self._services = services
        self._type = type_
        self._publication = services.publisher.bulk()
        self._line = 0
        self._refused = 0
        self._errors: list[dict[str, Any]] = []

    async def run(self, request: Request) -> None:
        settings = self._services.settings
        lines_ = body_lines(
            request,
            max_line_bytes=max_line_bytes(settings.max_dimension_bytes),
            timeout_ms=settings.body_timeout_ms,
        )
        async for lines in lines_:
            await self._publication.add(await self._wanted(self._read(lines, settings.max_dimension_bytes)))
            await asyncio.sleep(0)  # others' requests come in between, even when all is there at once
        await self._publication.finish()
        self._count_rows()

    async def settle(self) -> dict[str, Any]:
        try:
            await self._publication.finish()
        except PublishError as error:
            _log.warning("dimensions.unpublished", error=str(error))
        self._count_rows()
        return self.counts()

    def counts(self) -> dict[str, Any]:
        errors = sorted(self._errors, key=lambda error: int(error["line"]))
        return {"accepted": self._publication.acknowledged, "refused": self._refused, "errors": errors}

    def _count_rows(self) -> None:
        DIMENSION_ROWS.labels(self._type, "accepted").inc(self._publication.acknowledged)
        DIMENSION_ROWS.labels(self._type, "refused").inc(self._refused)

    async def _wanted(self, rows: list[tuple[int, Dimension]]) -> list[Dimension]:
        """Return the rows, each with its line, but those of erased objects."""
        erased = await self._services.syncs.erased.among(self._type, [row.id for _, row in rows])
        for line in (line for line, row in rows if row.id in erased):
            self._refuse("ERASED", f"this {self._type} was erased, and is not taken again", line)
        return [row for _, row in rows if row.id not in erased]

    def _read(self, lines: list[bytes | None], max_attributes_bytes: int) -> list[tuple[int, Dimension]]:
        rows: list[tuple[int, Dimension]] = []
        for line in lines:
            self._line += 1
            if line is None:
                self._refuse("TOO_LARGE", "the line is longer than a row may be")
            elif line and not line.isspace():
                try:
                    row = parse_row(self._type, line, self._services.clock, max_attributes_bytes)
                    rows.append((self._line, row))
                except DimensionError as error:
                    self._refuse(error.code, str(error))
        return rows

    def _refuse(self, code: str, message: str, line: int | None = None) -> None:
        self._refused += 1
        if len(self._errors) < MAX_ERRORS_SHOWN:
            self._errors.append({"line": self._line if line is None else line, "code": code, "message": message})


@router.get(
    "/v1/dimensions/{type}/{id:path}",
    summary="Read one object's attributes",
    description="As ClickHouse has them: a row that was just put appears some moments later.",
    responses={
        200: {
            "content": {
                "application/json": {
                    "example": {
                        "type": "user",
                        "id": "u1",
                        "attributes": _EXAMPLE,
                        "version": 1700000000000,
                        "updated_at": "2023-11-14T22:13:20.000Z",
                    }
                }
            }
        },
        **error_replies(400, 401, 403, 404, 429, 503),
    },
)
async def get_dimension(services: _Services, type_: _Type, id_: _Id) -> Response:
    """Answer with the row."""
    try:
        row = await services.finder.find(type_, id_)
    except ClickHouseError as error:
        _log.warning("clickhouse.unavailable", error=str(error))
        raise ApiError(503, "CLICKHOUSE_UNAVAILABLE", "ClickHouse does not answer now; try again") from None
    if row is None:
        raise ApiError(404, "NOT_FOUND", f"there is no {type_} of this id")
    return Response(msgspec.json.encode(row), media_type="application/json")


@router.delete(
    "/v1/dimensions/{type}/{id:path}",
    summary="Delete or erase one object",
    description="Begins a job and names it: `GET /v1/sync/{node_id}`. The row is deleted, and so are its copies in "
    "events. With `erase=true` the id is replaced by a pseudonym wherever it is stored, and not taken again.",
    status_code=202,
    responses={
        **json_reply(202, {"node_id": "019ab1f0-2f4e-7d31-8a61-5b7c0a7f1e02"}),
        **error_replies(400, 401, 403, 404, 409, 429, 503),
    },
)
async def delete_dimension(
    request: Request,
    services: _Services,
    operator: Annotated[Principal, Depends(require_operator)],
    type_: _Type,
    id_: _Id,
    erase: Annotated[bool, Query(description="Not only the row, but whatever tells of the object.")] = False,
) -> JSONResponse:
    """Begin a job, and say which."""
    return await begin_deletion(services, operator, request, type_, id_, erase=erase)


def _kafka_away(error: PublishError, **details: Any) -> ApiError:
    _log.warning("kafka.unavailable", error=str(error))
    return ApiError(503, "KAFKA_UNAVAILABLE", "Kafka did not acknowledge in time; send it again", **details)
