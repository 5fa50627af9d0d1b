"""A fleet for some time: registers what is new, then every device reports at its interval."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from midstream.simulate.credentials import Identity, Kept
from midstream.simulate.device import RefusedError, RemovedError, SimulatedDevice
from midstream.simulate.firmware import Firmware
from midstream.simulate.tally import Tally

_TIMEOUT = aiohttp.ClientTimeout(total=30)
_REGISTERING = 8
"""Registrations under way at once: a fleet does not switch itself on at one moment."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the fleet does."""

    base_url: str
    devices: int
    rate_per_s: float
    """Reports of all devices together."""
    seconds: float
    seed: int
    connections: int


class Fleet:
    """Devices of one plan. ``kept`` has the model's key, and the devices that registered before; it is added to."""

    def __init__(self, plan: Plan, kept: Kept, say: Callable[[str], None] = lambda _: None) -> None:
        self.tally = Tally()
        self.devices: list[SimulatedDevice] = []
        self.removed: list[str] = []
        self.refused: list[str] = []
        """The first of what should never be refused."""
        self._plan = plan
        self._kept = kept
        self._say = say

    async def run(self) -> None:
        """Register and report for as long as was planned; what is under way at the end is brought to its end."""
        connector = aiohttp.TCPConnector(limit=self._plan.connections)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=False) as session:
            await self._register(session)
            self._say(f"{len(self.devices):,} devices, {self._plan.rate_per_s:,.0f} reports a second")
            ends_at = time.monotonic() + self._plan.seconds
            async with asyncio.TaskGroup() as tasks:
                for device in self.devices:
                    tasks.create_task(self._live(device, ends_at))

    async def _register(self, session: aiohttp.ClientSession) -> None:
        firmwares = [Firmware(number, self._plan.seed) for number in range(self._plan.devices)]
        waiting = [one for one in firmwares if one.sn not in self._kept.devices]
        places = iter(waiting)

        async def register_some() -> None:
            for firmware in places:
                self._kept.devices[firmware.sn] = await self._register_one(session, firmware)
                self.tally.registered += 1
                if self.tally.registered % 1_000 == 0:
                    self._say(f"{self.tally.registered:,} of {len(waiting):,} registered")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_REGISTERING):
                tasks.create_task(register_some())
        self.devices = [
            SimulatedDevice(one, self._kept.devices[one.sn], session, self.tally, self._plan.base_url)
            for one in firmwares
        ]

    async def _register_one(self, session: aiohttp.ClientSession, firmware: Firmware) -> Identity:
        url, body = f"{self._plan.base_url}/v1/devices", firmware.registration(self._kept.hardware_key)
        for _ in range(10):
            async with session.post(url, json=body) as reply:
                answer = await reply.json()
                if reply.status == 201:
                    return Identity(answer["id"], answer["access_key"])
                self.tally.statuses[reply.status] += 1
                if reply.status < 500 and reply.status != 429:
                    raise RefusedError(f"{firmware.sn} is not registered: {reply.status} {answer}")
                await asyncio.sleep(float(reply.headers.get("retry-after", 1)))
        raise RefusedError(f"{firmware.sn} is not registered after ten tries")

    async def _live(self, device: SimulatedDevice, ends_at: float) -> None:
        interval_s = self._plan.devices / self._plan.rate_per_s
        # Devices were switched on at any time: their turns are spread evenly.
        turn = time.monotonic() + random.Random(device.firmware.sn).random() * interval_s
        while turn < ends_at:
            await asyncio.sleep(max(turn - time.monotonic(), 0))
            try:
                await device.report(time.time_ns() // 1_000)
            except RemovedError:
                self.removed.append(device.identity.id)
                return
            except RefusedError as error:
                if len(self.refused) < 100:
                    self.refused.append(str(error))
            turn += interval_s
            behind = int((time.monotonic() - turn) // interval_s) + 1
            if behind > 0:
                self.tally.late += behind
                turn += behind * interval_s
