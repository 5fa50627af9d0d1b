"""What a process remembers of devices: their keys and flags, right within a second of every change.

Each process looks twice a second for what has changed (``changes``) and forgets that. When it has not seen all changes
of a second ago it believes nothing that it remembers, and reads the registry at each call: whoever calls then is
answered right, or not at all.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from midstream.logs import get_logger
from midstream.metrics import DEVICE_CACHE_ENTRIES, DEVICE_CACHE_MISSES
from midstream.registry.engine import open_engine, unavailable_as_such
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.fleet.changes import Changed, forget_changes, read_changes
from midstream.registry.fleet.devices import Devices
from midstream.registry.fleet.errors import NotAllowedError, UnknownKeyError
from midstream.registry.fleet.flags import Flags, owner_of_key, read_flags
from midstream.registry.fleet.keys import MAX_KEY_CHARS, hash_key
from midstream.registry.reads import TIMEOUT_S, Reads, call_within
from midstream.settings import Settings

_log = get_logger(__name__)

_POLL_S = 0.5
_BELIEVED_S = 1.0
_WINDOW_S = 30.0
"""How long after a number one below it may still become visible."""

_MAX_CHANGES = 10_000
"""Of one window; more, and everything is forgotten."""

_FLUSH_S = 1.0
_FORGET_S = 60.0

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Known(NamedTuple):
    """What is remembered of a device."""

    flags: Flags
    reply: bytes
    """To a report of it: JSON."""


class FlagsCache:
    """Belongs to one event loop. Of the devices read last, ``device_cache_entries`` are remembered."""

    def __init__(self, settings: Settings) -> None:
        self._max_entries = settings.device_cache_entries
        self._reads = Reads(settings, "flags")
        self._writer = open_engine(settings, wait_ms=int(TIMEOUT_S * 1000))
        self._devices = Devices(self._writer)
        self._upkeep = ThreadPoolExecutor(2, thread_name_prefix="flags-upkeep")
        self._entries: OrderedDict[str, Known] = OrderedDict()
        self._changes = _Window()
        self._looked_at = float("-inf")
        self._forgotten = 0
        self._seen: dict[str, datetime] = {}
        self._away = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to look for changes. The registry may come later."""
        await self._look()
        self._tasks = [
            asyncio.create_task(self._keep_looking(), name="flags-look"),
            asyncio.create_task(self._keep_flushing(), name="flags-flush"),
        ]

    async def close(self) -> None:
        """Keep when devices were last seen, and close the connections; look-ups under way are not waited for."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
            await self._flush()
        self._upkeep.shutdown(wait=False, cancel_futures=True)
        self._forget_all()
        self._reads.close()
        self._writer.dispose()

    async def authenticate(self, device_id: str, key: str) -> Known:
        """Return the device that calls; it was seen now.

        Raises:
            UnknownKeyError: the key is nobody's: 401.
            NotAllowedError: it is another device's, or was revoked: 403.
            RegistryUnavailable: it cannot be told now: 503.
        """
        if not 0 < len(key) <= MAX_KEY_CHARS:
            raise UnknownKeyError("There is no access key in Authorization" if not key else "Unknown access key")
        digest = hash_key(key)
        for _ in range(2):  # a second time when it was registered between the two reads
            known = await self.get(device_id)
            if known is not None and hmac.compare_digest(known.flags.key_hash, digest):
                if known.flags.revoked:
                    raise NotAllowedError("The device was revoked")
                self._seen[device_id] = datetime.now(UTC)  # at most one entry for each registered device
                return known
            owner = await self._reads.read(lambda engine: owner_of_key(engine, digest))
            if owner is None:
                raise UnknownKeyError("Unknown access key")
            if owner != device_id:
                break
        raise NotAllowedError("The access key is another device's")

    async def get(self, device_id: str) -> Known | None:
        """Return what is to be known of a device, None when there is no such device.

        Raises:
            RegistryUnavailable: it cannot be told now.
        """
        if time.monotonic() - self._looked_at <= _BELIEVED_S:
            known = self._entries.get(device_id)
            if known is not None:
                self._entries.move_to_end(device_id)
                return known
        if _ID.fullmatch(device_id) is None:
            return None
        DEVICE_CACHE_MISSES.inc()
        forgotten = self._forgotten
        flags = await self._reads.read(lambda engine: read_flags(engine, device_id))
        if flags is None:
            return None
        known = Known(flags, _reply(flags))
        # Read before a change that was seen meanwhile, it must not be remembered.
        if forgotten == self._forgotten and time.monotonic() - self._looked_at <= _BELIEVED_S:
            self._remember(device_id, known)
        return known

    def _remember(self, device_id: str, known: Known) -> None:
        if self._entries.pop(device_id, None) is None:
            DEVICE_CACHE_ENTRIES.inc()
        self._entries[device_id] = known
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
            DEVICE_CACHE_ENTRIES.dec()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            await self._look()

    async def _look(self) -> None:
        """Forget what has changed."""
        began = time.monotonic()
        after = self._changes.floor

        def read() -> list[Changed]:
            with unavailable_as_such(), self._reads.engine.connect() as connection:
                return read_changes(connection, after, _MAX_CHANGES)

        try:
            found = await call_within(self._upkeep, read)
        except RegistryUnavailable as error:
            self._complain(error)
            return
        self._away = False
        changes = self._changes.advance(found, began)
        if len(found) >= _MAX_CHANGES or began - self._looked_at > _WINDOW_S:
            self._forget_all()
        elif changes:
            self._forget(changes)
        self._looked_at = began

    def _forget(self, changes: list[Changed]) -> None:
        self._forgotten += 1
        for change in changes:
            if change.device_id is not None and self._entries.pop(change.device_id, None) is not None:
                DEVICE_CACHE_ENTRIES.dec()
        models = {change.model_id for change in changes if change.model_id is not None}
        if models:
            of_models = [id_ for id_, known in self._entries.items() if known.flags.model_id in models]
            for id_ in of_models:
                del self._entries[id_]
            DEVICE_CACHE_ENTRIES.dec(len(of_models))

    def _forget_all(self) -> None:
        self._forgotten += 1
        DEVICE_CACHE_ENTRIES.dec(len(self._entries))  # others of this process count there too
        self._entries.clear()

    async def _keep_flushing(self) -> None:
        forgot_at = time.monotonic()
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self._flush()
            if time.monotonic() - forgot_at > _FORGET_S:
                forgot_at = time.monotonic()
                try:
                    await call_within(self._upkeep, lambda: forget_changes(self._writer))
                except RegistryUnavailable as error:
                    self._complain(error)

    async def _flush(self) -> None:
        """Keep when devices were last seen; what cannot be kept now is kept later."""
        seen, self._seen = self._seen, {}
        try:
            await call_within(self._upkeep, lambda: self._devices.touch(seen))
        except RegistryUnavailable as error:
            self._seen = {**seen, **self._seen}
            self._complain(error)

    def _complain(self, error: RegistryUnavailable) -> None:
        if not self._away:  # one line for one thing, not one a try
            self._away = True
            _log.error("registry.unavailable", error=str(error))


class _Window:
    """Which changes are new to this process. A number counts as passed once a higher one, or itself, was seen
    ``_WINDOW_S`` ago; no clock but this process's own is asked."""

    def __init__(self) -> None:
        self.floor = 0
        self._fresh: set[int] = set()
        self._highest: deque[tuple[float, int]] = deque()

    def advance(self, found: list[Changed], now: float) -> list[Changed]:
        """Return, of the changes above :attr:`floor`, newest first, those that were not there before."""
        new = [change for change in found if change.number not in self._fresh]
        self._fresh.update(change.number for change in new)
        if new and (not self._highest or found[0].number > self._highest[-1][1]):
            self._highest.append((now, found[0].number))
        while self._highest and now - self._highest[0][0] > _WINDOW_S:
            self.floor = self._highest.popleft()[1]
            self._fresh = {number for number in self._fresh if number > self.floor}
        return new


def _reply(flags: Flags) -> bytes:
    return orjson.dumps(
        {
            "success": True,
            "config_version": flags.config_version,
            "command": flags.command,
            "new_licenses": flags.new_licenses,
            "info_version": flags.info_version,
            "latest_fw_version": flags.latest_fw_version,
            "latest_fw_file_id": flags.latest_fw_file_id,
            "space_data_version": flags.space_data_version,
        }
    )
