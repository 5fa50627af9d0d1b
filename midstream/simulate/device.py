"""One simulated device on the network: reports, and does what the answers ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from midstream.devices.report import read_report
from midstream.simulate.credentials import Identity
from midstream.simulate.expected import ExpectedState
from midstream.simulate.firmware import Body, Firmware
from midstream.simulate.tally import Tally

_RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_OK = (200, 201)


class RemovedError(Exception):
    """The server says that the device is no more: it stops."""


class RefusedError(Exception):
    """A call that is wrong, and would be refused again: a fault of the simulator, or of the server."""


class SimulatedDevice:
    """Sends for one firmware through a session that many devices share.

    Like firmware in the field it takes 401 and 403 for its own removal, repeats what got no answer until it gets one,
    and parses every reply as JSON.
    """

    def __init__(
        self, firmware: Firmware, identity: Identity, session: aiohttp.ClientSession, tally: Tally, base_url: str
    ) -> None:
        self.firmware = firmware
        self.identity = identity
        self.expected = ExpectedState()
        self._session = session
        self._tally = tally
        self._url = f"{base_url}/v1/devices/{identity.id}"
        self._headers = {"authorization": identity.access_key}
        self._config_version = 0
        self._receipts = 0

    async def report(self, now_us: int) -> None:
        """Send what is due, and do what the answers ask for.

        Raises:
            RemovedError: 401 or 403.
        """
        for body in self.firmware.due(now_us):
            flags = await self._send(body)
            if self.firmware.loses_answer():
                self._tally.resent += 1
                flags = await self._send(body)
            await self._obey(flags)

    async def _send(self, body: Body) -> Mapping[str, Any]:
        headers = {"connection": "close"} if self.firmware.reconnects() else {}
        began = time.perf_counter()
        flags: Mapping[str, Any] = await self._call("POST", "/telemetry", body, headers)
        self._tally.replied((time.perf_counter() - began) * 1000)
        self._receipts += 1
        received_at_us = time.time_ns() // 1_000
        self.expected.add(read_report(self.identity.id, body, received_at_us, str(self._receipts)))
        return flags

    async def _obey(self, flags: Mapping[str, Any]) -> None:
        if flags["config_version"] > self._config_version:
            await self._apply_config()
        if flags["command"]:
            await self._do_command()
        if flags["new_licenses"]:
            await self._take_licenses()
        offered = flags["latest_fw_version"]
        if offered is not None and offered != self.firmware.version and self.firmware.updates():
            await self._update(offered, flags["latest_fw_file_id"])

    async def _apply_config(self) -> None:
        config = await self._call("GET", "/config")
        await self._call("POST", "/config", config)
        self._config_version = config["version"]
        self._tally.done["config"] += 1

    async def _do_command(self) -> None:
        command = await self._call("GET", "/command")
        if not command:
            return
        if command["status"] == "pending":
            await self._call("POST", "/command", {"status": "in_progress", "id": command["id"]})
        await self._call("POST", "/command", {"status": "done", "id": command["id"], "message": "done"})
        self._tally.done["command"] += 1

    async def _take_licenses(self) -> None:
        for one in await self._call("GET", "/licenses"):
            state = "removed" if one["action"] == "remove" else "inuse"
            await self._call("POST", "/licenses", {"id": one["id"], "state": state})
            self._tally.done["license"] += 1

    async def _update(self, version: str, file_id: str) -> None:
        file = await self._call("GET", f"/files/{file_id}")
        async with self._session.get(file["url"], headers=self._headers) as reply:
            if reply.status not in _OK:
                self._tally.statuses[reply.status] += 1
                return
            async for _ in reply.content.iter_chunked(65_536):
                pass
        await self._call("PATCH", "", {"firmware_version": version})
        self.firmware.version = version
        self._tally.done["firmware"] += 1

    async def _call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Ask until there is an answer; return its JSON.

        Raises:
            RemovedError: 401 or 403.
            RefusedError: another 4xx.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with self._session.request(
                    method, self._url + path, json=body, headers={**self._headers, **(headers or {})}
                ) as reply:
                    answer = await reply.json()
                    if reply.status in _OK:
                        return answer
                    self._tally.statuses[reply.status] += 1
                    if reply.status in (401, 403):
                        raise RemovedError(str(answer))
                    if reply.status not in _RETRY_STATUSES:
                        raise RefusedError(f"{method} {path}: {reply.status} {answer}")
                    wait_s = float(reply.headers.get("retry-after", pause_s))
            except (aiohttp.ClientError, TimeoutError, ValueError):
                self._tally.unanswered += 1
                wait_s = pause_s
            await asyncio.sleep(min(wait_s, _LONGEST_PAUSE_S))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
