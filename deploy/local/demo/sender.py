"""Sends a day as the clients do: a refused batch is sent again, identical, with back-off, until it is taken.

The ledger is the client's own account of it, made of replies alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from deploy.local.demo.day import Batch, Day
from deploy.local.demo.target import DemoError, Target

PATH = "/api/data/v1/telemetry"

_SENDERS_AT_ONCE = 6
_TIMEOUT_S = 10.0
_FIRST_DELAY_S = 0.25
_MAX_DELAY_S = 4.0


@dataclass(slots=True)
class Ledger:
    """What was sent, and what came back."""

    accepted: dict[str, Batch] = field(default_factory=dict)
    """By batch id, from ``X-Batch-Id`` of each 200."""
    requests: int = 0
    lost_replies: int = 0
    refusals: int = 0
    """Replies that made the client send again."""
    unknown: int = 0
    """Requests of which the client cannot tell whether they were taken: no reply, or one that says so."""
    bytes: int = 0
    """Bytes of bodies."""

    @property
    def events(self) -> int:
        """Events in all accepted batches, each as often as it was taken."""
        return sum(len(batch.events) for batch in self.accepted.values())


async def push_dimensions(target: Target, token: str, dimensions: dict[str, list[dict[str, Any]]]) -> None:
    """Put the rows of all types.

    Raises:
        DemoError: one was refused, or the api did not answer.
    """
    async with _client(target, token) as client:
        for type_, rows in dimensions.items():
            body = b"".join(orjson.dumps(row) + b"\n" for row in rows)
            try:
                reply = await client.post(
                    f"/v1/dimensions/{type_}", content=body, headers={"Content-Type": "application/x-ndjson"}
                )
            except httpx.TransportError as error:
                raise DemoError(f"the api did not answer: {type(error).__name__}") from None
            if reply.status_code != 200 or reply.json().get("accepted") != len(rows):
                raise DemoError(f"POST /v1/dimensions/{type_} answered {reply.status_code}: {reply.text[:500]}")


async def send_day(target: Target, day: Day, limit_s: float, told: Callable[[int], None]) -> Ledger:
    """Send all batches, round by round; ``told`` is called with the number of events of each batch taken.

    Raises:
        DemoError: a batch was not taken within the time limit, or never can be.
    """
    ledger = Ledger()
    post = _Post(target, ledger, time.monotonic() + limit_s, told)
    async with _client(target, target.token) as client:
        for round_ in day.rounds:
            by_sender: dict[str, list[Batch]] = {}
            for batch in round_:
                by_sender.setdefault(batch.sender.id, []).append(batch)
            try:
                async with asyncio.TaskGroup() as group:
                    for batches in by_sender.values():
                        group.create_task(post.send_all(client, batches))
            except* DemoError as errors:
                raise errors.exceptions[0] from None
    return ledger


def _client(target: Target, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=target.base_url,
        headers={"Authorization": f"Bearer {token}"},
        timeout=_TIMEOUT_S,
        trust_env=False,  # the pipeline is on this machine: no proxy
        limits=httpx.Limits(max_connections=_SENDERS_AT_ONCE),
    )


class _Post:
    def __init__(self, target: Target, ledger: Ledger, deadline: float, told: Callable[[int], None]) -> None:
        self._target = target
        self._ledger = ledger
        self._deadline = deadline
        self._told = told
        self._slots = asyncio.Semaphore(_SENDERS_AT_ONCE)

    async def send_all(self, client: httpx.AsyncClient, batches: Sequence[Batch]) -> None:
        """Send the batches of one device in their order."""
        async with self._slots:
            for batch in batches:
                for _ in range(batch.lost_replies):
                    await self._send(client, batch)
                    self._ledger.lost_replies += 1
                await self._send(client, batch)

    async def _send(self, client: httpx.AsyncClient, batch: Batch) -> None:
        ledger = self._ledger
        delay_s = _FIRST_DELAY_S
        while True:
            ledger.requests += 1
            ledger.bytes += len(batch.body)
            wait_s, last = delay_s, "no answer"
            try:
                reply = await client.post(PATH, content=batch.body, headers=batch.headers)
            except httpx.TransportError as error:
                # Only what was never connected was surely not taken.
                ledger.unknown += not isinstance(error, httpx.ConnectError | httpx.PoolTimeout)
                last = type(error).__name__
            else:
                batch_id = reply.headers.get("X-Batch-Id", "")
                if reply.is_success and batch_id and reply.json()["params"]["status"] == "successful":
                    ledger.accepted[batch_id] = batch
                    self._told(len(batch.events))
                    return
                if reply.status_code == 401:
                    raise DemoError(f"{self._target.base_url} refuses the token of the demo: {reply.text[:300]}")
                ledger.unknown += bool(batch_id)
                last = f"{reply.status_code} {reply.text[:300]}"
                with contextlib.suppress(ValueError):
                    wait_s = max(wait_s, float(reply.headers.get("Retry-After", "")))
            ledger.refusals += 1
            if time.monotonic() + wait_s > self._deadline:
                raise DemoError(f"the collector did not take batch {batch.msgid} in time; last: {last}")
            await asyncio.sleep(wait_s)
            delay_s = min(delay_s * 2, _MAX_DELAY_S)
