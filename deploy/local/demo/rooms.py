"""Devices in rooms that report their state: simulated ones, a few seconds long."""

from __future__ import annotations

import asyncio
from typing import Any

from deploy.local.demo.target import DemoError, Target
from midstream.clickhouse.client import ClickHouse
from midstream.registry.errors import RegistryError
from midstream.simulate.check import wrong_states
from midstream.simulate.credentials import CredentialsError, read_kept, write_kept
from midstream.simulate.fleet import Fleet, Plan
from midstream.simulate.model import own_model

_DEVICES = 20
_SECONDS = 5.0
_SEED = 0
"""Not the one of `midstream simulate fleet`, whose devices report at another interval."""
_SENDING_LIMIT_S = 20.0
_ARRIVAL_LIMIT_S = 10.0

_STATE = "SELECT key, value, at FROM device_state WHERE device_id = {device:String} ORDER BY key"


async def run_rooms(target: Target, clickhouse: ClickHouse) -> dict[str, Any]:
    """Let devices report; return the counts, one device's state, and what does not add up.

    Raises:
        DemoError: they could not report.
        ClickHouseError: ClickHouse cannot be read.
    """
    path = target.settings.home / "simulate" / f"fleet-{_SEED}.json"
    plan = Plan(target.base_url, _DEVICES, float(_DEVICES), _SECONDS, _SEED, _DEVICES)
    try:
        kept = await asyncio.to_thread(read_kept, path)
        if not kept.hardware_key:
            kept.hardware_key = await asyncio.to_thread(own_model, target.settings, _SEED, _DEVICES / plan.rate_per_s)
        fleet = Fleet(plan, kept)
        try:
            async with asyncio.timeout(_SENDING_LIMIT_S):
                await fleet.run()
        finally:
            await asyncio.to_thread(write_kept, path, kept)
    except (CredentialsError, RegistryError) as error:
        raise DemoError(str(error)) from None
    except TimeoutError:
        raise DemoError(f"{_DEVICES} devices did not report within {_SENDING_LIMIT_S:.0f} s") from None
    except ExceptionGroup as group:
        raise DemoError(f"devices could not report: {group.exceptions[0]}") from None
    wrong = await asyncio.to_thread(wrong_states, fleet.devices, clickhouse.rows, _ARRIVAL_LIMIT_S)
    shown = fleet.devices[0]
    return {
        "devices": len(fleet.devices),
        "reports": fleet.tally.acknowledged,
        "sent_again": fleet.tally.resent,
        "reply_ms": fleet.tally.summary()["reply_ms"],
        "device": shown.firmware.sn,
        "state": await asyncio.to_thread(clickhouse.named_rows, _STATE, {"device": shown.identity.id}),
        "problems": [f"device {device_id} has another state than it reported" for device_id in wrong] + fleet.refused,
    }
