"""Which objects were erased, as a process that is told of many objects remembers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from datetime import datetime, timedelta

from midstream.erased import SUBKEY, ErasedKey
from midstream.metrics import ERASED_CACHE_ENTRIES
from midstream.registry.keyfile import derive_key
from midstream.registry.reads import Reads
from midstream.registry.sync.erased import ErasedIds
from midstream.settings import Settings

MAX_REMEMBERED = 200_000
"""Digests that a process remembers; where there are more, the registry is asked for each that is not among them."""

_EVERY_S = 1.0
_ALL_EVERY_S = 600.0
_OVERLAP = timedelta(seconds=60)
"""By which the clocks of those that erase may differ, until all are read again."""


class ErasedCache:
    """Tells whether an object was erased; what was erased counts within a second. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key: ErasedKey | None = None
        self._reads = Reads(settings, "erased")
        self._known: set[str] = set()
        self._is_all = True
        self._newest: datetime | None = None
        self._refreshed = float("-inf")
        self._read_all = float("-inf")
        self._reading = asyncio.Lock()

    def close(self) -> None:
        """Close the connections; reads under way are not waited for."""
        self._reads.close()
        ERASED_CACHE_ENTRIES.dec(len(self._known))
        self._known = set()

    async def among(self, type_: str, ids: Collection[str]) -> set[str]:
        """Return those of some ids that were erased.

        Raises:
            RegistryUnavailable: it cannot be told now.
        """
        await self._refresh()
        if not self._known:
            return set()
        if self._key is None:
            self._key = ErasedKey(derive_key(self._settings, SUBKEY))
        digests = {self._key.digest(type_, id_): id_ for id_ in ids}
        found = self._known & digests.keys()
        if not self._is_all:
            unknown = digests.keys() - found
            found |= await self._reads.read(lambda engine: ErasedIds(engine).among(unknown))
        return {digests[digest] for digest in found}

    async def _refresh(self) -> None:
        if time.monotonic() - self._refreshed < _EVERY_S:
            return
        async with self._reading:
            now = time.monotonic()
            if now - self._refreshed < _EVERY_S:
                return
            whole = now - self._read_all >= _ALL_EVERY_S
            since = None if whole or self._newest is None else self._newest - _OVERLAP
            found = await self._reads.read(lambda engine: ErasedIds(engine).since(since, MAX_REMEMBERED))
            before = len(self._known)
            self._known = set(found.digests) if whole else self._known.union(found.digests)
            self._is_all = found.is_all if since is None else self._is_all and found.is_all
            if len(self._known) > MAX_REMEMBERED:
                self._known, self._is_all = set(found.digests), False
            self._newest = found.at or self._newest
            ERASED_CACHE_ENTRIES.inc(len(self._known) - before)
            self._refreshed = now
            if since is None:
                self._read_all = now
