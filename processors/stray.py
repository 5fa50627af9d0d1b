"""Waits that end: with an error where asyncio would say nothing, and in time where a client may not.

aiokafka cancels futures of its own when a connection breaks. Who awaits one gets a ``CancelledError`` that nobody
asked for; a task then ends as if it had been told to, and nobody hears of it: neither a task group nor Faust.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from midstream.logs import get_logger

log = get_logger(__name__)

_T = TypeVar("_T")
_STOP_S = 5.0


class StrayCancelError(Exception):
    """Something that was waited for was cancelled, but not the one who waited."""


async def unless_cancelled(work: Awaitable[_T]) -> _T:
    """Await ``work``.

    Raises:
        StrayCancelError: it was cancelled, and this task was not asked to end.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise StrayCancelError("what was waited for was cancelled") from error


async def stop_in_time(what: str, work: Awaitable[None]) -> None:
    """Await the end of a client for a few seconds at most: an error on its way up must not wait for it."""
    try:
        async with asyncio.timeout(_STOP_S):
            await work
    except TimeoutError:
        log.warning("client.not_stopped", client=what, after_s=_STOP_S)
