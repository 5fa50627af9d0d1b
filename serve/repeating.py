"""Something that is done again and again beside the requests, as long as the process serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


class Repeating:
    """Belongs to one event loop. What ``do`` raises ends it: it must see to its own errors."""

    def __init__(self, name: str, do: Callable[[], Awaitable[None]], every_s: float, *, at_once: bool = True) -> None:
        """
        Args:
            name: of the task.
            do: what is done.
            every_s: how long it rests between the end of one time and the beginning of the next.
            at_once: begin with doing, not with a rest.
        """
        self._name = name
        self._do = do
        self._every_s = every_s
        self._at_once = at_once
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self) -> None:
        """Stop; what is being done is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        if not self._at_once:
            await asyncio.sleep(self._every_s)
        while True:
            await self._do()
            await asyncio.sleep(self._every_s)
