"""One record: written by a platform or by the learner's own runner, and read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Security
from starlette.responses import Response

from midstream.assignments.compute import Derived, derive, steps_of
from midstream.assignments.fields import BodyError, Value, read_own, read_write
from midstream.assignments.record import fold, show
from midstream.assignments.rows import RecordKey, Write
from midstream.assignments.runner import TelemetryError
from midstream.metrics import ASSIGNMENT_SECONDS, ASSIGNMENT_WRITES
from midstream.registry.academies.records import Found
from midstream.registry.errors import RegistryUnavailable
from serve.assignments import refused
from serve.assignments.caller import TOKEN, Caller, learner_of, user_id_of, viewer_of, writer_of
from serve.assignments.paths import RawPathRoute, asset_of, check_asset, decoded
from serve.assignments.refused import RefusedError
from serve.bodies import read_body
from serve.errors import ApiError
from serve.openapi import json_body, json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["assignments"], route_class=RawPathRoute, dependencies=[Security(TOKEN)])

_PATH = "/v1/assignment/academy/asset/{asset_slug}/user/{user_id}/telemetry"
# Each is there from the start, at 0: what is not there cannot be alerted on.
_WRITES = {outcome: ASSIGNMENT_WRITES.labels(outcome) for outcome in ("created", "updated", "refused", "unavailable")}
T = TypeVar("T")

_Services = Annotated[Services, Depends(services_of)]
_Compute = Annotated[
    str,
    Query(
        alias="compute",
        description="true: derive metrics and scores that the write leaves out from the telemetry.",
        json_schema_extra={"enum": ["true", "false"]},
    ),
]
_COMPUTES = {"true": True, "1": True, "false": False, "0": False, "": False}
_RECORD = {
    "id": 1,
    "user": 123,
    "asset_slug": "intro-to-python",
    "telemetry": {"steps": []},
    "metrics": None,
    "engagement_score": 90.5,
    "frustration_score": None,
    "completion_rate": 50.0,
    "metrics_algo_version": None,
    "total_time": "01:30:00",
    "created_at": "2026-01-01T00:00:00.000000Z",
    "updated_at": "2026-01-01T00:00:00.000000Z",
}
_BODY = json_body({"engagement_score": 90.5, "completion_rate": 50, "total_time": "PT1H30M"})


@router.post(
    _PATH,
    summary="Create a learner's record, or update it",
    description="What the body leaves out stays as it is, null clears. 201 when the record is new.",
    responses={**json_reply(201, _RECORD), **json_reply(200, _RECORD), **refused.replies(400, 401, 403, 404, 413, 503)},
    openapi_extra={"requestBody": _BODY},
)
async def post_record(
    request: Request, services: _Services, asset_slug: str, user_id: str, computes: _Compute = ""
) -> Response:
    """Write and answer with the record."""
    caller = await writer_of(request, services.assignments.access)
    user = user_id_of(user_id)
    if not await services.assignments.access.user_exists(user):
        raise refused.no_user(decoded(user_id) or "?")
    key = RecordKey(caller.academy_id, check_asset(asset_of(asset_slug)), user)
    return await _write(request, services, caller, key, computes)


@router.put(
    _PATH,
    summary="Update a learner's record",
    responses={**json_reply(200, _RECORD), **refused.replies(400, 401, 403, 404, 413, 503)},
    openapi_extra={"requestBody": _BODY},
)
@router.patch(
    _PATH,
    summary="Update a learner's record: the same as PUT",
    responses={**json_reply(200, _RECORD), **refused.replies(400, 401, 403, 404, 413, 503)},
    openapi_extra={"requestBody": _BODY},
)
async def put_record(
    request: Request, services: _Services, asset_slug: str, user_id: str, computes: _Compute = ""
) -> Response:
    """Write and answer with the record."""
    caller = await writer_of(request, services.assignments.access)
    key, _ = await _existing(services, caller, asset_slug, user_id)
    return await _write(request, services, caller, key, computes)


@router.get(
    _PATH,
    summary="Read a learner's record",
    responses={**json_reply(200, _RECORD), **refused.replies(400, 401, 403, 404, 503)},
)
async def get_record(request: Request, services: _Services, asset_slug: str, user_id: str) -> Response:
    """Answer with the record."""
    caller = await viewer_of(request, services.assignments.access)
    key, found = await _existing(services, caller, asset_slug, user_id)
    record = fold(await services.assignments.store.read(key))
    updated_at = record.updated_at or found.created_at
    body = show(found.id, key.user_id, key.asset_slug, record.values, found.created_at, updated_at)
    return Response(body, media_type="application/json")


@router.post(
    "/v1/assignment/me/telemetry",
    summary="Send telemetry of one's own, as the runner of an exercise does",
    description="The body is the telemetry: its `slug` names the asset, the token its user. The academy need not be "
    "named by a user who is in one alone.",
    responses={**json_reply(201, _RECORD), **json_reply(200, _RECORD), **refused.replies(400, 401, 403, 413, 503)},
    openapi_extra={"requestBody": json_body({"slug": "intro-to-python", "steps": [], "workout_session": []})},
)
async def post_own(request: Request, services: _Services, computes: _Compute = "") -> Response:
    """Write and answer with the record."""
    caller = await learner_of(request, services.assignments.access)
    began = time.perf_counter()
    own = _read(read_own, await _body(request, services))
    key = RecordKey(caller.academy_id, check_asset(own.slug), caller.user_id)
    return await _store(services, caller, key, {"telemetry": own.telemetry}, _computes(computes), began)


async def _existing(services: Services, caller: Caller, asset_slug: str, user_id: str) -> tuple[RecordKey, Found]:
    slug = asset_of(asset_slug)
    key = RecordKey(caller.academy_id, slug, user_id_of(user_id))
    found = await services.assignments.access.record(*key)
    if found is None or not found.confirmed:
        raise refused.no_record(slug, decoded(user_id) or "?")
    return key, found


async def _write(request: Request, services: Services, caller: Caller, key: RecordKey, computes: str) -> Response:
    began = time.perf_counter()
    given = _read(read_write, await _body(request, services))
    return await _store(services, caller, key, given, _computes(computes), began)


def _computes(said: str) -> bool:
    computes = _COMPUTES.get(said.lower())
    if computes is None:
        raise refused.bad_fields({"compute": ["Must be true or false."]})
    return computes


async def _body(request: Request, services: Services) -> bytes:
    settings = services.settings
    limit = settings.max_assignment_bytes
    return await read_body(request, max_bytes=limit, max_inflated_bytes=limit, timeout_ms=settings.body_timeout_ms)


def _read(read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except BodyError as error:
        _WRITES["refused"].inc()
        raise RefusedError(400, error.reply) from None


async def _store(
    services: Services, caller: Caller, key: RecordKey, given: Mapping[str, Value], computes: bool, began: float
) -> Response:
    computed, steps = await _derived(services, key, given, computes)
    write = Write(key, caller.user_id, given, computed, steps)
    try:
        written = await services.assignments.store.write(write)
    except (ApiError, RegistryUnavailable):
        _WRITES["unavailable"].inc()
        raise
    _WRITES["created" if written.created else "updated"].inc()
    placed = written.placed
    record = fold(written.versions)
    # Whoever writes sees what he wrote, though another may have written it anew at the same moment.
    values = {**record.values, **given}
    updated_at = record.updated_at or placed.written_at
    body = show(placed.id, key.user_id, key.asset_slug, values, placed.created_at, updated_at)
    ASSIGNMENT_SECONDS.observe(time.perf_counter() - began)
    return Response(body, 201 if written.created else 200, media_type="application/json")


async def _derived(services: Services, key: RecordKey, given: Mapping[str, Value], computes: bool) -> Derived:
    """Return what is derived from the telemetry that the write gives, or else from the record's."""
    own = given.get("telemetry")
    if not computes:
        return Derived({}, steps_of(own))
    telemetry = own if "telemetry" in given else await _stored_telemetry(services, key)
    if not isinstance(telemetry, bytes):
        return Derived({}, ())
    try:
        derived = derive(given, telemetry)
    except TelemetryError as error:
        _WRITES["refused"].inc()
        raise refused.bad_fields({"telemetry": [str(error)]}) from None
    return derived if own is telemetry else derived._replace(steps=())


async def _stored_telemetry(services: Services, key: RecordKey) -> Value:
    return fold(await services.assignments.store.read(key)).values.get("telemetry")
