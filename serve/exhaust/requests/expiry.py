"""Looks after requests that have ended: their time, their files, and whether they must be built anew."""

from __future__ import annotations

import asyncio

from midstream.logs import get_logger
from midstream.metrics import EXHAUST_REQUEST_BYTES, EXHAUST_REQUESTS_OPEN
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust.requests import Requests
from serve.exhaust.requests.again import Held, as_it_is
from serve.repeating import Repeating

_log = get_logger(__name__)

_AT_ONCE = 50
_PAUSE_S = 0.005
"""Between two requests: the event loop has others to serve."""


class Expiry:
    """Belongs to one event loop. Each process of the api does the same work."""

    def __init__(self, held: Held, look_s: float) -> None:
        self._held = held
        self._looking = Repeating("exhaust-expiry", self._look, look_s)

    def start(self) -> None:
        """Begin to look after them."""
        self._looking.start()

    async def close(self) -> None:
        """Stop."""
        await self._looking.close()

    async def _look(self) -> None:
        try:
            await self.look()
        except (RegistryUnavailable, OSError) as error:
            _log.warning("exhaust.requests_not_looked_after", error=str(error))

    async def look(self) -> None:
        """Do it once.

        Raises:
            RegistryUnavailable: the registry is away.
            OSError: the folder cannot be read.
        """
        calls, kept = self._held.calls, self._held.kept
        expired = await calls.change(Requests.expire)
        if expired:
            _log.info("exhaust.requests_expired", requests=expired)
        await self._look_at_finished()
        # The folders first: one that is being filled meanwhile is noted in the registry before it is made.
        all_names = await asyncio.to_thread(kept.names)
        for start in range(0, len(all_names), _AT_ONCE):
            names = all_names[start : start + _AT_ONCE]
            tags = await calls.read(Requests.live_tags, {kept.owner(name) for name in names})
            for name in names:
                if not kept.is_of(name, tags.get(kept.owner(name))):
                    await asyncio.to_thread(kept.remove_folder, name)
        EXHAUST_REQUESTS_OPEN.set(await calls.read(Requests.count_open))
        EXHAUST_REQUEST_BYTES.set(await calls.read(Requests.held_bytes))

    async def _look_at_finished(self) -> None:
        """Begin those anew whose days were revised."""
        after = ""
        while rows := await self._held.calls.read(Requests.finished, limit=_AT_ONCE, after=after):
            for row in rows:
                await as_it_is(self._held, row)
                await asyncio.sleep(_PAUSE_S)
            after = rows[-1].id
