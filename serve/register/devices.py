"""Registers devices: what one says is merged with what is known of it, and published as its row of ``dimensions``.

A registration is done when Kafka has acknowledged the row, or when it says nothing new. What is known is ClickHouse's
row, read anew each time, and the rows that this process has published and that are not there yet: the memory of those
is bounded, and each leaves it when ClickHouse has had it for a while. Without ClickHouse nothing is registered: what is
not known would be lost.

Registrations of one device in one process follow each other. Two processes, of one machine or of several, may each
publish a row without knowing of the other's, within the moment that ClickHouse is behind Kafka; the row of the higher
version then lacks what the other said. The process that published the other one sees it there some seconds later, and
puts back what is lacking. Once its own row is there it goes on looking for as long as that took: so far behind may
another's be. Where both say another value of one attribute either may stay. What is lacking stays away only when that
process ends before it looked, or has published more rows since that ClickHouse does not have than
:data:`MAX_PUBLISHED` and :data:`MAX_PUBLISHED_BYTES` allow.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Protocol
from weakref import WeakValueDictionary

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import MAX_VERSION, Dimension, DimensionError, DimensionType, VersionClock, make_dimension
from midstream.kafka.dimension_publisher import PublishError
from midstream.logs import get_logger
from midstream.metrics import (
    DEVICE_ATTRIBUTES_RESTORED,
    DEVICE_LOOKUPS_WAITING,
    DEVICE_REGISTRATIONS,
    DEVICE_ROWS_UNSEEN,
)
from midstream.settings import Settings
from serve.calls import CallError
from serve.gather import Bounds, Gather
from serve.register.attributes import Attributes, Base, Published, Row, base_of, write_attributes
from serve.repeating import Repeating

_log = get_logger(__name__)

MAX_PUBLISHED = 20_000
"""Rows that are remembered until ClickHouse has them."""

MAX_PUBLISHED_BYTES = 32 * 1024 * 1024
"""Bytes of them; the oldest go first."""

REPEAT_AFTER_S = 300.0
"""After so long a row that ClickHouse still does not have is published again when its device registers."""

_LOOK_EVERY_S = 2.0
_LOOK_AFTER_S = 3.0
"""Rows are looked for when they are so old: before, ClickHouse seldom has them."""

_MAX_LOOKED_FOR = 1_000
_LOCK_TIMEOUT_S = 10.0
_TOGETHER = 500
_TOGETHER_BYTES = 64 * 1024  # the ids of a query are one field of a form, of which ClickHouse takes 128 KiB
_WAITING = 4_096
_WAITING_BYTES = 4 * 1024 * 1024
_CALLS = 2
_APART_S = 0.02  # a query costs ClickHouse some 5 ms, for one device or for fifty

for _outcome in ("written", "unchanged", "refused", "unavailable"):
    DEVICE_REGISTRATIONS.labels(_outcome)


class PublishesRow(Protocol):
    """Writes a row to the topic ``dimensions``."""

    async def publish(self, row: Dimension) -> None:
        """Return when Kafka has acknowledged the row; raise PublishError."""


class DeviceRegister:
    """Belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        find_rows: Callable[[Sequence[str]], list[Row]],
        publisher: PublishesRow,
        clock: VersionClock,
    ) -> None:
        """``find_rows`` runs in a thread: the rows of some devices as ClickHouse has them, in order."""
        self._max_attributes_bytes = settings.max_dimension_bytes
        self._publisher = publisher
        self._clock = clock
        bounds = Bounds(
            together=_TOGETHER,
            together_bytes=_TOGETHER_BYTES,
            waiting=_WAITING,
            waiting_bytes=_WAITING_BYTES,
            calls=_CALLS,
            apart_s=_APART_S,
            timeout_s=settings.clickhouse_timeout_ms / 1000,
        )
        self._rows: Gather[str, Row] = Gather("device-rows", find_rows, bounds, DEVICE_LOOKUPS_WAITING)
        self._published: OrderedDict[str, Published] = OrderedDict()
        self._published_bytes = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # each for as long as one holds it
        self._looking = Repeating("device-register", self.look_again, _LOOK_EVERY_S, at_once=False)

    def start(self) -> None:
        """Begin to look for what was published."""
        self._looking.start()

    async def close(self) -> None:
        """Stop; look-ups under way are not waited for."""
        await self._looking.close()
        self._rows.close()
        for did in list(self._published):
            self._forget(did)

    async def known(self, did: str) -> Attributes:
        """Return what is known of a device; nothing of one that never registered.

        Raises:
            ClickHouseError: ClickHouse does not answer.
            CallError: it does not answer in time, or too many ask.
        """
        # Before and after: while ClickHouse answered, a row may have been seen there and forgotten, or been published.
        before = self._published.get(did)
        found = await self._find(did)
        return base_of(found, self._published.get(did) or before).row.attributes

    async def register(self, did: str, given: Attributes) -> bool:
        """Make what is given known of a device; return whether there was anything new to publish.

        Raises:
            midstream.dimensions.DimensionError: all that is known together is too large.
            PublishError: Kafka did not acknowledge; whether the row is there is not known.
            ClickHouseError: ClickHouse does not answer; nothing was published.
            CallError: it does not answer in time, or too many ask; nothing was published.
        """
        async with self._alone(did):
            # Before ClickHouse is asked: while it answers, the row may arrive there, be seen and forgotten.
            published = self._published.get(did)
            found = await self._find(did)
            base = base_of(found, published)
            attributes = base.row.attributes | given
            overdue = not base.seen and published is not None and time.monotonic() - published.at_s > REPEAT_AFTER_S
            if not self._must_write(base, attributes) and not overdue:
                return False
            row = await self._publish(did, base.row, attributes)
            DEVICE_ATTRIBUTES_RESTORED.inc(len(base.lost))
            if base.seen or published is None:
                upon, said = found.attributes, base.lost | given
            else:
                upon, said = published.before, published.given | given
            self._remember(did, Published(upon, said, row, time.monotonic()))
            return True

    @staticmethod
    def _must_write(base: Base, attributes: Attributes) -> bool:
        return bool(base.lost) or attributes != base.row.attributes or base.row.deleted or base.row.version < 0

    async def _publish(self, did: str, after: Row, attributes: Attributes) -> Row:
        version = min(max(self._clock.next(did), after.version + 1), MAX_VERSION)
        text = write_attributes(attributes)
        row = make_dimension(DimensionType.DEVICE, did, text, version, self._max_attributes_bytes)
        await self._publisher.publish(row)
        return Row(attributes, version)

    async def look_again(self) -> None:
        """Look whether ClickHouse has what was published, and put back what another's row lacks."""
        until_s = time.monotonic() - _LOOK_AFTER_S
        old = ((did, published) for did, published in self._published.items() if published.at_s <= until_s)
        due = list(islice(old, _MAX_LOOKED_FOR))
        found = await asyncio.gather(*(self._find(did) for did, _ in due), return_exceptions=True)
        for (did, published), row in zip(due, found, strict=True):
            if self._published.get(did) is not published:
                continue  # it has registered since
            if isinstance(row, BaseException):
                if not isinstance(row, ClickHouseError | CallError):
                    raise row
                _log.warning("device_register.not_looked", error=str(row))
                return
            base = base_of(row, published)
            if base.lost:
                await self._put_back(did)
                continue
            now = time.monotonic()
            if base.seen and published.seen_s is None:
                self._published[did] = published._replace(seen_s=now)
            elif base.seen and _has_settled(published, now):
                self._forget(did)
                continue
            self._published.move_to_end(did)  # others come first

    async def _put_back(self, did: str) -> None:
        try:
            await self.register(did, {})
        except (PublishError, ClickHouseError, CallError) as error:
            _log.warning("device_register.not_put_back", error=str(error))  # the next look tries again
        except DimensionError as error:
            _log.warning("device_register.lost", error=str(error))
            self._forget(did)

    def _remember(self, did: str, published: Published) -> None:
        self._forget(did)
        self._published[did] = published
        self._published_bytes += published.size_bytes
        DEVICE_ROWS_UNSEEN.inc()
        while len(self._published) > MAX_PUBLISHED or self._published_bytes > MAX_PUBLISHED_BYTES:
            self._forget(next(iter(self._published)))

    def _forget(self, did: str) -> None:
        forgotten = self._published.pop(did, None)
        if forgotten is not None:
            self._published_bytes -= forgotten.size_bytes
            DEVICE_ROWS_UNSEEN.dec()

    async def _find(self, did: str) -> Row:
        return await self._rows.run(did, 2 * len(did.encode()))  # as large as its escapes can make it

    @asynccontextmanager
    async def _alone(self, did: str) -> AsyncIterator[None]:
        lock = self._locks.get(did)
        if lock is None:
            lock = self._locks[did] = asyncio.Lock()
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT_S):
                await lock.acquire()
        except TimeoutError:
            raise CallError("too many registrations of this device at once") from None
        try:
            yield
        finally:
            lock.release()


def _has_settled(published: Published, now: float) -> bool:
    """Tell whether a row that was read before this one was seen must have been seen by now too."""
    seen_s = now if published.seen_s is None else published.seen_s
    return now - seen_s >= max(_LOOK_AFTER_S, seen_s - published.at_s)
