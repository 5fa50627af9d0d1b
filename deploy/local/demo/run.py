"""The demo from beginning to end, against a pipeline. Every step has a time limit; together they take some 20 s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from deploy.local.demo.day import Day
from deploy.local.demo.exercises import run_exercises
from deploy.local.demo.outcome import RunReader, compare
from deploy.local.demo.queries import queries_of
from deploy.local.demo.report import summarise
from deploy.local.demo.rooms import run_rooms
from deploy.local.demo.school import school_of
from deploy.local.demo.sender import push_dimensions, send_day
from deploy.local.demo.target import DemoError, Target, operator_token
from midstream.clickhouse.client import open_client

DIMENSIONS_LIMIT_S = 10.0
SENDING_LIMIT_S = 25.0
ARRIVAL_LIMIT_S = 15.0
ACCOUNTING_LIMIT_S = 5.0

_CLOCK_MARGIN_MS = 60_000  # the collector's clock stamps `received_at`


async def run_demo(
    target: Target, day: Day, told: Callable[[str, int, int], None] = lambda _name, _done, _total: None
) -> dict[str, Any]:
    """Send the day, wait for it, compare, and return the summary (see :func:`deploy.local.demo.report.summarise`).

    ``told`` is called with ``sending`` or ``in ClickHouse``, the number of events that are through, and of all.

    Raises:
        DemoError: it could not be sent.
        ClickHouseError: ClickHouse cannot be read.
    """
    began = time.monotonic()
    since_ms = time.time_ns() // 1_000_000 - _CLOCK_MARGIN_MS
    clickhouse = await asyncio.to_thread(open_client, target.settings)
    try:
        reader = RunReader(clickhouse, day.run, since_ms)
        with operator_token(target.settings) as token:
            await push_dimensions(target, token, day.dimensions)
        if not await asyncio.to_thread(reader.wait_for_dimensions, day.dimensions, DIMENSIONS_LIMIT_S):
            raise DemoError(f"users, devices and content are not in ClickHouse after {DIMENSIONS_LIMIT_S:.0f} s")
        all_events = sum(len(batch.events) * (1 + batch.lost_replies) for batch in day.batches)
        sent = 0

        def sent_more(events: int) -> None:
            nonlocal sent
            sent += events
            told("sending", sent, all_events)

        sending = time.monotonic()
        ledger = await send_day(target, day, SENDING_LIMIT_S, sent_more)
        waiting = time.monotonic()
        await asyncio.to_thread(
            reader.wait_until_complete, ledger, ARRIVAL_LIMIT_S, lambda done: told("in ClickHouse", done, all_events)
        )
        complete = time.monotonic()
        outcome = await asyncio.to_thread(reader.read)
        arrivals = await asyncio.to_thread(reader.arrivals, day.followed_mid)
        answers = [(query, await asyncio.to_thread(clickhouse.named_rows, query.sql)) for query in queries_of(day.run)]
        accounting = await asyncio.to_thread(reader.accounting, ACCOUNTING_LIMIT_S)
        rooms = await run_rooms(target, clickhouse)
        with school_of(target.settings, day.run) as school:
            exercises = await run_exercises(target.base_url, school, day.seed, int(day.run, 36))
    finally:
        clickhouse.close()
    seconds = {"sending": waiting - sending, "arriving": complete - waiting, "all": time.monotonic() - began}
    problems = [*compare(day, ledger, outcome), *rooms.pop("problems"), *exercises.pop("problems")]
    return summarise(day, ledger, outcome, problems, arrivals, answers, accounting, rooms, exercises, seconds)
