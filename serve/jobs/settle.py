"""Waits for other parts: until ClickHouse has the rows, until ``store`` has stored what it had before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from aiokafka.errors import KafkaError

from midstream.logs import get_logger
from midstream.topics import DIMENSIONS, GROUP_DIMENSIONS, GROUP_STORE, VALID
from serve.jobs.errors import AwayError
from serve.jobs.held import HeldJob
from serve.jobs.tools import Ends, Tools

_log = get_logger(__name__)

T = TypeVar("T")


async def until_visible(held: HeldJob, tools: Tools) -> None:
    """Wait until ClickHouse has every row that is in the topic ``dimensions`` now.

    Raises:
        AwayError: it has not in time: the job is put off.
        StoppedError: the job is not to be gone on with.
    """
    limits = tools.limits
    behind = -1
    until = time.monotonic() + limits.visible_s
    ends: Ends | None = None
    while True:
        try:
            if ends is None:
                ends = await _bounded(tools.follows.ends(DIMENSIONS.name), until)
            behind = await _bounded(tools.follows.behind(GROUP_DIMENSIONS, ends), until)
            if not behind:
                return
        except (KafkaError, TimeoutError) as error:
            _log.warning("job.kafka_unasked", error=f"{type(error).__name__}: {error}")
        if time.monotonic() >= until:
            words = "Kafka does not say what ClickHouse has" if behind < 0 else f"ClickHouse lacks {behind} rows"
            raise AwayError(f"{words} after {limits.visible_s:g} s: is `store` running?")
        await held.wait(limits.poll_s)


async def until_settled(held: HeldJob, tools: Tools) -> bool:
    """Wait until ``store`` has stored all that it may have denormalised with earlier rows; return whether it has.

    A worker hears of a row within :attr:`Limits.heard_s`; what it took up before it has stored when it has acknowledged
    the end that the topic has then. Beyond the time limit the job goes on: its resweep finds what came later.

    Raises:
        StoppedError: the job is not to be gone on with.
    """
    limits = tools.limits
    until = time.monotonic() + limits.settle_s
    await held.wait(limits.heard_s)
    ends: Ends | None = None
    total = 0
    while time.monotonic() < until:
        try:
            if ends is None:
                ends = await _bounded(tools.follows.ends(VALID.name), until)
            behind = await _bounded(tools.follows.behind(GROUP_STORE, ends), until)
            if not behind:
                return True
            total = max(total, behind)
            held.advance(total - behind, total)
        except (KafkaError, TimeoutError) as error:
            _log.warning("job.kafka_unasked", error=f"{type(error).__name__}: {error}")
        await held.wait(limits.poll_s)
    _log.warning("job.unsettled", job=held.job.id, after_s=limits.settle_s)
    return False


async def _bounded(asking: Awaitable[T], until: float) -> T:
    async with asyncio.timeout(max(0.1, until - time.monotonic())):
        return await asking
