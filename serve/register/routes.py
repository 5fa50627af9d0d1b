"""``/v3/device``: an app registers its device, and asks for the device's profile.

Sunbird's apps call it at each start; see :mod:`serve.register.envelope`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import MAX_ID_BYTES, DimensionError
from midstream.ip_location import Address, Place, public_address
from midstream.kafka.dimension_publisher import PublishError
from midstream.logs import get_logger
from midstream.metrics import DEVICE_REGISTRATIONS
from serve.auth import require_principal
from serve.bodies import read_body
from serve.calls import CallError
from serve.errors import ApiError
from serve.openapi import MEANINGS, json_body, json_reply
from serve.path_ids import decode_id
from serve.register.attributes import FROM_IP, USER_DECLARED, encode_location, location_of
from serve.register.body import MAX_BODY_BYTES, BodyError, Said
from serve.register.body import read_body as read_registration
from serve.register.envelope import PROFILE, PROFILE_ID, REGISTER, REGISTER_ID, good_reply
from serve.services import Services, services_of

_log = get_logger(__name__)

router = APIRouter(tags=["device register"], dependencies=[Depends(require_principal)])

_Services = Annotated[Services, Depends(services_of)]
_REGISTERED: dict[str, Any] = {"message": "Device registered successfully", "actions": []}
_LOCATION = {"state": "Karnataka", "district": "Mysuru"}
_BODY = {
    "id": "analytics.device.register",
    "ver": "1.0",
    "params": {"msgid": "m-1"},
    "request": {
        "did": "device-1",
        "producer": "app.example",
        "dspec": {"os": "Android 14", "make": "Example One", "cpu": "arm64-v8a", "mem": 3900},
        "uaspec": {"agent": "Chrome", "ver": "126.0", "system": "Android", "platform": "Linux"},
        "fcmToken": "(the token for notifications)",
        "first_access": 1700000000000,
        "userDeclaredLocation": _LOCATION,
    },
}


_CODES = {
    400: "INVALID_REQUEST",
    401: "UNAUTHORIZED",
    408: "BODY_TIMEOUT",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_ENCODING",
    429: "RATE_LIMITED",
    503: "CLICKHOUSE_UNAVAILABLE",
}


def _example(id_: str, code: str, result: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "ver": "1.0",
        "ts": "2023-11-14T22:13:20.000+00:00",
        "params": {"resmsgid": "9a0f1c1e-0000-4000-8000-000000000000", "msgid": None, **params},
        "responseCode": code,
        "result": result,
    }


def _replies(id_: str, result: dict[str, Any], *errors: int, **params: Any) -> dict[int | str, dict[str, Any]]:
    good = json_reply(200, _example(id_, "OK", result, status="successful", err=None, errmsg=None, **params))
    for status in errors:
        said = {"status": "failed", "err": _CODES[status], "errmsg": "(what is wrong)"}
        if status == 400:
            said |= {"errmsg": "/request/dspec: Expected `object`", "pointer": "/request/dspec"}
        example = _example(id_, "CLIENT_ERROR" if status < 500 else "SERVER_ERROR", {}, **said)
        good[status] = {
            "description": MEANINGS[status],
            "content": {"application/json": {"schema": {"type": "object"}, "example": example}},
        }
    return good


def _did(
    request: Request,
    did: Annotated[
        str,
        Path(
            description="The device's id, URL-encoded; it may hold slashes.",
            json_schema_extra={"minLength": 1, "maxLength": MAX_ID_BYTES},
        ),
    ],
) -> str:
    return decode_id(request, 3)


_Did = Annotated[str, Depends(_did)]


@router.post(
    f"{REGISTER}/{{did:path}}",
    summary="Register a device",
    description="Everything in `request` is optional; what is not given stays as it is known. A 200 means that Kafka "
    "has acknowledged the device's row, or that nothing of it is new. Gzip too.",
    responses=_replies(REGISTER_ID, _REGISTERED, 400, 401, 408, 413, 415, 429, 503, msgid="m-1"),
    openapi_extra={"requestBody": json_body(_BODY)},
)
async def register_device(request: Request, services: _Services, did: _Did) -> JSONResponse:
    """Merge what the device says with what is known of it, and publish its row."""
    try:
        said = await _read(request, services, did)
        given = said.given
        address = public_address(said.ip_address) or _callers_address(request)
        place = services.ip_locations.find(address)
        if place is not None:
            given |= {FROM_IP: encode_location(*place)}
        try:
            written = await services.device_register.register(did, given)
        except DimensionError as error:
            raise ApiError(413 if error.code == "TOO_LARGE" else 400, error.code, str(error)) from None
        except PublishError as error:
            _log.warning("kafka.unavailable", error=str(error))
            raise ApiError(503, "KAFKA_UNAVAILABLE", "Kafka did not acknowledge in time; send it again") from None
        except (ClickHouseError, CallError) as error:
            raise _clickhouse_away(error) from None
    except ApiError as error:
        DEVICE_REGISTRATIONS.labels("refused" if error.status < 500 else "unavailable").inc()
        raise
    DEVICE_REGISTRATIONS.labels("written" if written else "unchanged").inc()
    return JSONResponse(good_reply(REGISTER, _REGISTERED, said.msgid))


@router.get(
    f"{PROFILE}/{{did:path}}",
    summary="Read a device's profile",
    description="Where its user says it is (absent when nobody did), and where its internet address says it is: as it "
    'registered, else as it calls now. "" stands for what is not known. A device that never registered has one too.',
    responses=_replies(PROFILE_ID, {USER_DECLARED: _LOCATION, FROM_IP: _LOCATION}, 400, 401, 429, 503),
)
async def read_profile(request: Request, services: _Services, did: _Did) -> JSONResponse:
    """Answer with the two locations.

    Not known for sure, they are no answer: an app forgets what its user declared when the profile does not have it.
    """
    try:
        known = await services.device_register.known(did)
    except (ClickHouseError, CallError) as error:
        raise _clickhouse_away(error) from None
    from_ip = location_of(known, FROM_IP)
    if from_ip is None:
        place = services.ip_locations.find(_callers_address(request)) or Place("", "")
        from_ip = place._asdict()
    declared = location_of(known, USER_DECLARED)
    return JSONResponse(good_reply(PROFILE, ({USER_DECLARED: declared} if declared else {}) | {FROM_IP: from_ip}))


async def _read(request: Request, services: Services, did: str) -> Said:
    body = await read_body(
        request,
        max_bytes=MAX_BODY_BYTES,
        max_inflated_bytes=MAX_BODY_BYTES,
        timeout_ms=services.settings.body_timeout_ms,
    )
    try:
        return read_registration(body, did)
    except BodyError as error:
        raise ApiError(400, error.code, str(error), pointer=error.pointer) from None


def _callers_address(request: Request) -> Address | None:
    return public_address(request.client.host) if request.client else None


def _clickhouse_away(error: Exception) -> ApiError:
    _log.warning("clickhouse.unavailable", error=str(error))
    return ApiError(503, "CLICKHOUSE_UNAVAILABLE", "ClickHouse does not answer now; try again")
