"""Follows a device's state, or the whole fleet's: server-sent events of what changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from serve.errors import ApiError
from serve.fleet.devices import device_info
from serve.fleet.operator import require_fleet_operator
from serve.fleet.shown import shown_entry
from serve.fleet.store import Entry
from serve.objects import sought
from serve.openapi import device_errors
from serve.services import Services, services_of
from serve.sse import HEADERS, MEDIA_TYPE, STILL_HERE, event_of
from serve.stopping import until_stop

router = APIRouter(tags=["fleet"], dependencies=[Depends(require_fleet_operator)])

_Services = Annotated[Services, Depends(services_of)]
_POLL_S = 0.5
_SIGN_OF_LIFE_S = 15.0
_LONGEST_S = 15 * 60.0
"""After it the stream ends, and its reader asks anew, as readers of server-sent events do by themselves: so nobody
follows for longer with a token that was revoked."""

State = Mapping[str, Entry]


@router.get(
    "/v1/fleet/stream",
    summary="Follow a device's state, or the fleet's",
    description="Server-sent events. Of one `device`: first `state` with all keys, then a `change` for each key that "
    "changes; its value is null when the key was removed. Of the whole fleet, without `device`: `state` with all keys "
    "of a device each time that it has reported, at the most once a second. The stream ends after 15 minutes; readers "
    "connect again by themselves.",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "text/event-stream": {
                    "example": 'event: change\ndata: {"device":"0b6f...","key":"temp","value":21.5,"at":"..."}\n\n'
                }
            }
        },
        **device_errors(401, 404, 422, 503),
    },
)
async def get_stream(services: _Services, device: Annotated[str, Query()] = "") -> StreamingResponse:
    """Answer with events until the reader goes away."""
    if device:
        device_id = sought(device)
        await device_info(services, device_id)
    if services.stream_slots.locked():
        raise ApiError(503, "BUSY", "as many streams as this process takes are open; try again")
    if device:
        events = await _of_device(services, device_id)
    else:
        events = services.fleet_watch.follow(_LONGEST_S)
    first = await anext(events)  # a store that is away is said as a status

    async def all_events() -> AsyncIterator[bytes]:
        async with services.stream_slots, aclosing(until_stop(events, services.stopping)) as following:
            yield first
            async for event in following:
                yield event

    return StreamingResponse(all_events(), media_type=MEDIA_TYPE, headers=HEADERS)


async def _of_device(services: Services, device_id: str) -> AsyncGenerator[bytes]:
    async def ask() -> State:
        return await services.device_store.run(lambda store: store.state(device_id))

    return follow(device_id, await ask(), ask, poll_s=_POLL_S, longest_s=_LONGEST_S)


async def follow(
    device_id: str, first: State, ask: Callable[[], Awaitable[State]], *, poll_s: float, longest_s: float
) -> AsyncGenerator[bytes]:
    """Yield events of what changes after ``first``; while the store does not answer, none."""
    began = told_at = time.monotonic()
    state = first
    now_us = time.time_ns() // 1_000
    yield event_of("state", {"device": device_id, "state": {key: shown_entry(state[key], now_us) for key in state}})
    while time.monotonic() - began < longest_s:
        await asyncio.sleep(poll_s)
        try:
            now = await ask()
        except ApiError:
            now = state
        for key in sorted(state.keys() | now.keys()):
            change = _change(device_id, key, state.get(key), now.get(key))
            if change is not None:
                told_at = time.monotonic()
                yield change
        state = now
        if time.monotonic() - told_at > _SIGN_OF_LIFE_S:
            told_at = time.monotonic()
            yield STILL_HERE


def _change(device_id: str, key: str, before: Entry | None, now: Entry | None) -> bytes | None:
    """Return the event of a key's change, None when it is as it was. Said again at a later time, it is a change."""
    if now is None:
        return None if before is None else event_of("change", {"device": device_id, "key": key, "value": None})
    if before is not None and (before.value, before.at_us) == (now.value, now.at_us):
        return None
    shown = shown_entry(now, time.time_ns() // 1_000)
    return event_of("change", {"device": device_id, "key": key, "value": shown["value"], "at": shown["at"]})
