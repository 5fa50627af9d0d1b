"""Gives the batches of a slot to Kafka, in order, as they were written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import takewhile

from ingest.publish import NotPublishedError, Publisher
from ingest.spool.format import Record
from ingest.spool.segment import SegmentFile, read_segment, set_aside
from ingest.spool.shelf import Shelf
from midstream.kafka.producer import RecordTooLarge, is_refusal
from midstream.logs import get_logger
from midstream.metrics import SPOOL_DRAINED_BATCHES
from midstream.settings import MIB
from midstream.topics import RAW, RECEIPT_HEADER

_log = get_logger(__name__)

MAX_IN_FLIGHT_BYTES = 4 * MIB
"""Bytes of the spool on their way to Kafka at once: what apps post meanwhile must not wait for long."""

_FIRST_REST_S = 1.0
_LAST_REST_S = 60.0


class Drainer:
    """Drains segments one after the other. Belongs to one event loop.

    A segment is deleted after Kafka has acknowledged all of it. If that does not come to pass, the whole segment is
    given to Kafka again: with the receipts it had, so that it counts once. A segment that the disk does not let be read
    or deleted rests for a while, longer each time. Where Kafka refuses a record for good, the rest of its segment goes
    one by one, and the refused ones are set aside.
    """

    def __init__(self, publisher: Publisher, timeout_s: float) -> None:
        self._publisher = publisher
        self._timeout_s = timeout_s
        self._in_flight_bytes = 0
        self._room = asyncio.Event()

    async def drain(self, shelf: Shelf, seal: Callable[[], Awaitable[None]] | None = None) -> None:
        """Return when nothing is left that was there at the beginning; ``seal`` ends the segment that grows.

        A segment that cannot be read is left for the next time, and does not keep back those after it.

        Raises:
            NotPublishedError: Kafka does not take batches now.
        """
        if seal is not None and shelf.segments:
            await seal()
        segments = shelf.segments  # at once: the next one that comes is still written to
        for segment in shelf.acknowledged:
            await self._delete(shelf, segment)
        drained = 0
        for segment in segments:
            if _rests(segment):
                continue
            try:
                drained += await self._drain_segment(shelf, segment)
            except OSError as error:
                _rest(segment, "spool.segment_not_drained", error)
            else:
                await self._delete(shelf, segment)
        if drained:
            _log.info("spool.drained", folder=str(shelf.folder), batches=drained)

    async def _delete(self, shelf: Shelf, segment: SegmentFile) -> None:
        if _rests(segment):
            return
        try:
            await asyncio.to_thread(shelf.delete_file, segment)
        except OSError as error:
            _rest(segment, "spool.segment_not_deleted", error)
        else:
            shelf.remove(segment)

    async def _drain_segment(self, shelf: Shelf, segment: SegmentFile) -> int:
        records = await asyncio.to_thread(lambda: list(read_segment(segment)))
        left = records if segment.one_by_one else await self._drain_together(records)
        refused = 0
        if left:
            segment.one_by_one = True
            refused = await self._drain_one_by_one(segment, left)
        segment.failures = 0
        shelf.acknowledge(segment)
        SPOOL_DRAINED_BATCHES.inc(len(records) - refused)
        return len(records) - refused

    async def _drain_together(self, records: list[Record]) -> list[Record]:
        """Return none when Kafka has all; those that it does not have when it refused one."""
        deliveries: list[asyncio.Future[object]] = []
        try:
            for record in records:
                size = record.end - record.start
                await self._wait_for_room(size)
                headers = [(RECEIPT_HEADER, record.receipt)]
                delivery = await self._publisher.hand_over(RAW.name, record.key, record.body, headers)
                self._in_flight_bytes += size
                delivery.add_done_callback(partial(self._let_go, size))
                deliveries.append(delivery)
            if deliveries:
                await asyncio.wait(deliveries, timeout=self._timeout_s, return_when=asyncio.FIRST_EXCEPTION)
            if not all(map(_is_acknowledged, deliveries)):
                raise NotPublishedError("Kafka did not acknowledge batches of the spool")
        except NotPublishedError:
            if not any(is_refusal(_error_of(delivery)) for delivery in deliveries):
                raise
        except RecordTooLarge:
            pass
        else:
            return []
        acknowledged = sum(1 for _ in takewhile(_is_acknowledged, deliveries))
        return records[acknowledged:]  # in their order, so that those of one key stay in theirs

    async def _drain_one_by_one(self, segment: SegmentFile, records: list[Record]) -> int:
        """Return how many were set aside."""
        refused = 0
        async with self._publisher.alone() as send:
            for record in records:
                try:
                    await send(RAW.name, record.key, record.body, [(RECEIPT_HEADER, record.receipt)])
                except RecordTooLarge:
                    await asyncio.to_thread(set_aside, segment, record)
                    refused += 1
        return refused

    def _let_go(self, size: int, delivery: asyncio.Future[object]) -> None:
        self._in_flight_bytes -= size
        self._room.set()
        if not delivery.cancelled():
            delivery.exception()  # looked at, also when nobody waits any more

    async def _wait_for_room(self, size: int) -> None:
        while self._in_flight_bytes and self._in_flight_bytes + size > MAX_IN_FLIGHT_BYTES:
            self._room.clear()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._room.wait()
            except TimeoutError:
                raise NotPublishedError("Kafka did not acknowledge batches of the spool") from None


def _is_acknowledged(delivery: asyncio.Future[object]) -> bool:
    return delivery.done() and not delivery.cancelled() and delivery.exception() is None


def _error_of(delivery: asyncio.Future[object]) -> BaseException | None:
    return delivery.exception() if delivery.done() and not delivery.cancelled() else None


def _rests(segment: SegmentFile) -> bool:
    return time.monotonic() < segment.rests_until


def _rest(segment: SegmentFile, what: str, error: OSError) -> None:
    if not segment.failures:  # one line for one thing, not one a try
        _log.error(what, path=str(segment.path), error=str(error))
    segment.rests_until = time.monotonic() + min(_LAST_REST_S, _FIRST_REST_S * 2 ** min(segment.failures, 10))
    segment.failures += 1
