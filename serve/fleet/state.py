"""A device's state, now and before, and the history of its keys."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from midstream.devices.report import MAX_KEY_BYTES, STATUS_KEY
from midstream.registry.fleet.devices import DeviceInfo
from midstream.registry.fleet.errors import FleetError
from serve.fleet.devices import device_info
from serve.fleet.operator import DeviceId, require_fleet_operator
from serve.fleet.shown import is_stale, shown_entry, status_of
from serve.fleet.store import Entry
from serve.objects import iso_us, moment_us, to_moment
from serve.openapi import device_errors, json_reply
from serve.services import Services, services_of

router = APIRouter(tags=["fleet"], dependencies=[Depends(require_fleet_operator)])

_Services = Annotated[Services, Depends(services_of)]
_DAY_US = 24 * 3600 * 1_000_000


@router.get(
    "/v1/fleet/devices/{device_id}/state",
    summary="A device's state",
    description="With `at` that of a moment, by the times of its reports, those that came later included. `age_s` is "
    "the age then.",
    responses={
        **json_reply(
            200,
            {
                "state": {"temp": {"value": 21.5, "at": "2026-01-31T12:00:00.000000Z", "age_s": 4.2}},
                "status": "online",
                "stale": False,
            },
        ),
        **device_errors(401, 404, 422, 503),
    },
)
async def get_state(
    services: _Services,
    device_id: DeviceId,
    at: Annotated[str, Query(description="ISO 8601; without a zone UTC. Absent: now.")] = "",
) -> JSONResponse:
    """Answer with the state by key."""
    at_us = moment_us(at, "at")
    if at_us is not None:
        to_moment(at_us)
    info = await device_info(services, device_id)
    state = await services.device_store.run(lambda store: store.state(device_id, at_us))
    return JSONResponse(shown_state(state, info, at_us))


def shown_state(state: Mapping[str, Entry], info: DeviceInfo, at_us: int | None) -> dict[str, Any]:
    """Return a state as it is shown: that of a moment, or for None the current one."""
    said = state.get(STATUS_KEY)
    if at_us is None:
        now_us = time.time_ns() // 1_000
        seen_at, now = info.last_seen_at, datetime.now(UTC)
    else:
        # Every report has a status: its time is that of the last one.
        now_us = at_us
        seen_at, now = None if said is None else to_moment(said.at_us), to_moment(at_us)
    return {
        "state": {key: shown_entry(state[key], now_us) for key in sorted(state)},
        "status": status_of(said, seen_at, info.interval_s, now),
        "stale": is_stale(seen_at, info.interval_s, now),
    }


@router.get(
    "/v1/fleet/devices/{device_id}/history",
    summary="The values of a key over time, oldest first",
    description="From `from` to before `to`; absent: the last 24 hours. Every value below 1,000 of them, down-sampled "
    "above.",
    responses={
        **json_reply(200, {"points": [{"at": "2026-01-31T12:00:00.000000Z", "value": 21.5}]}),
        **device_errors(401, 404, 422, 503),
    },
)
async def get_history(
    services: _Services,
    device_id: DeviceId,
    key: Annotated[str, Query()],
    from_: Annotated[str, Query(alias="from", description="ISO 8601.")] = "",
    to: Annotated[str, Query(description="ISO 8601.")] = "",
) -> JSONResponse:
    """Answer with the points."""
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise FleetError(f"key must not be longer than {MAX_KEY_BYTES} bytes")
    to_us = moment_us(to, "to")
    if to_us is None:
        to_us = time.time_ns() // 1_000
    from_us = moment_us(from_, "from")
    if from_us is None:
        from_us = to_us - _DAY_US
    if from_us > to_us:
        raise FleetError("from must not be after to")
    await device_info(services, device_id)
    points = await services.device_store.run(lambda store: store.history(device_id, key, from_us, to_us))
    return JSONResponse({"points": [{"at": iso_us(at_us), "value": value} for at_us, value in points]})
