"""All that exhaust works with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from midstream.registry.exhaust.access import ExhaustAccess
from midstream.settings import Settings
from serve.exhaust.closed import ClosedDays
from serve.exhaust.days.follow import Days
from serve.exhaust.days.keeper import Keeper
from serve.exhaust.days.prepare import Preparing
from serve.exhaust.log import DownloadLog
from serve.exhaust.requests.again import Held
from serve.exhaust.requests.calls import RequestCalls, utc_now
from serve.exhaust.requests.expiry import Expiry
from serve.exhaust.requests.jobs import PACE, Pace, Runner
from serve.exhaust.requests.kept import Kept
from serve.exhaust.requests.links import Links

MAX_DOWNLOADS = 64
"""Downloads that one process sends at once."""


@dataclass(frozen=True, slots=True)
class Exhaust:
    """What the routes of exhaust call."""

    access: ExhaustAccess
    closed: ClosedDays
    days: Days
    preparing: Preparing
    log: DownloadLog
    held: Held
    runner: Runner
    links: Links
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_DOWNLOADS))


@asynccontextmanager
async def open_exhaust(
    settings: Settings, *, pace: Pace = PACE, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[Exhaust]:
    """Open it; ClickHouse is connected to when it is first needed.

    Args:
        settings: of the process.
        pace: of what is done for requests.
        now: tells the time by which requests expire.

    Raises:
        midstream.registry.errors.RegistryUnavailable: the registry cannot be opened.
    """
    async with AsyncExitStack() as stack:
        access = ExhaustAccess(settings)
        stack.callback(access.close)
        closed = ClosedDays(settings)
        stack.callback(closed.close)
        log = DownloadLog(settings)
        log.start()
        stack.push_async_callback(log.close)
        days = Days(settings)
        stack.push_async_callback(days.close)
        preparing = Preparing(days)
        stack.push_async_callback(preparing.close)
        keeper = Keeper(settings, access)
        keeper.start()
        stack.push_async_callback(keeper.close)
        calls = RequestCalls(settings, now)
        stack.callback(calls.close)
        held = Held(access, calls, Kept(settings.exhaust_folder))
        expiry = Expiry(held, pace.look_s)
        expiry.start()
        stack.push_async_callback(expiry.close)
        runner = Runner(settings, held, closed, days, pace)
        runner.start()
        stack.push_async_callback(runner.close)
        yield Exhaust(access, closed, days, preparing, log, held, runner, Links(settings))
