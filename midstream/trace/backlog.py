"""Searching what is on its way: the spool of this host, then the records that the stages have not acknowledged.

Bounded in bytes, records and time. What is cut off, or cannot be read, makes the answer incomplete, never wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError

from midstream.events.judge import Judge
from midstream.logs import get_logger
from midstream.receipt import decode_receipt, foreign_receipt
from midstream.records import OtherVersionError
from midstream.settings import Settings
from midstream.trace.arrivals import BatchFacts, Sighting
from midstream.trace.needles import Needles, facts_of
from midstream.trace.offsets import Offsets, Ranges
from midstream.trace.reader import Reader
from midstream.trace.spooled import spooled_records
from processors.validate.split import RawRecord, UnreadableBatch, split_record

_log = get_logger(__name__)

_MAX_RECORDS = 20_000


class CutOffError(Exception):
    """As much was searched as may be."""


@dataclass(slots=True)
class Budget:
    """How much more may be searched, and until when (``time.monotonic``)."""

    bytes_left: int
    deadline_s: float
    records_left: int = _MAX_RECORDS

    def check_time(self) -> None:
        """Raise CutOffError when the time is over."""
        if time.monotonic() >= self.deadline_s:
            raise CutOffError

    def check(self, size_bytes: int) -> None:
        """Raise CutOffError when there is no room for a record of at least this size."""
        self.check_time()
        if size_bytes > self.bytes_left or self.records_left <= 0:
            raise CutOffError

    def spend(self, size_bytes: int) -> None:
        """Count one record."""
        self.bytes_left -= size_bytes
        self.records_left -= 1


@dataclass(slots=True)
class Seen:
    """What a search has seen."""

    deadline_s: float
    sightings: dict[str, list[Sighting]] = field(default_factory=dict)
    """By mid."""
    complete: bool = True
    receipts: Ranges = field(default_factory=dict)
    """Where the batches are that are not in ``batches`` yet."""


class BacklogSearch:
    """Searches for one process. Belongs to one event loop; reads and parses in a thread of its own."""

    def __init__(self, settings: Settings, judge: Judge) -> None:
        self._settings = settings
        self._judge = judge
        self._offsets = Offsets(settings)
        self._reader = Reader(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trace-search")

    async def close(self) -> None:
        """Close the connections; a search under way is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._offsets.close()
        await self._reader.close()

    async def search(self, mids: Collection[str]) -> Seen:
        """Return the arrivals of these mids that are on their way.

        An event that moves on meanwhile is seen where it comes from, or where it goes to, or both: places are asked in
        the order in which events pass them, and ClickHouse is to be asked afterwards.
        """
        seen = Seen(time.monotonic() + self._settings.trace_search_ms / 1000)
        needles = Needles(mids, self._judge, self._settings.max_inflated_bytes, self._settings.max_batch_events)
        budget = Budget(self._settings.trace_search_bytes, seen.deadline_s)
        try:
            async with asyncio.timeout(self._settings.trace_search_ms / 1000):
                await self._in_thread(self._search_spool, needles, budget, seen)
                backlog = await self._offsets.backlog()
                seen.receipts = backlog.receipts
                async with aclosing(self._reader.read(backlog.events)) as reading:
                    async for records in reading:
                        await self._in_thread(self._search_records, records, needles, budget, seen)
        except (CutOffError, TimeoutError):
            seen.complete = False
        except (KafkaError, OtherVersionError) as error:
            _log.warning("trace.kafka_away", error=f"{type(error).__name__}: {error}")
            seen.complete = False
        return seen

    async def batches(self, batch_ids: Collection[str], seen: Seen) -> dict[str, BatchFacts]:
        """Return facts of those batches that were not in ``batches`` yet and are in Kafka; bounded like a search."""
        found: dict[str, BatchFacts] = {}
        budget = Budget(self._settings.trace_search_bytes, seen.deadline_s)
        try:
            async with asyncio.timeout(max(seen.deadline_s - time.monotonic(), 0)):
                async with aclosing(self._reader.read(seen.receipts)) as reading:
                    async for records in reading:
                        await self._in_thread(self._read_receipts, records, batch_ids, budget, found)
                        if len(found) == len(batch_ids):
                            break
        except (CutOffError, TimeoutError, KafkaError) as error:
            _log.info("trace.batches_unread", error=f"{type(error).__name__}: {error}")
        return found

    async def _in_thread(self, work: object, *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)  # type: ignore[arg-type]

    def _search_spool(self, needles: Needles, budget: Budget, seen: Seen) -> None:
        try:
            records = spooled_records(self._settings.spool_folder, budget.bytes_left)
            self._search_records(records, needles, budget, seen)
        except OSError as error:
            _log.warning("trace.spool_unread", error=str(error))
            seen.complete = False

    def _search_records(self, records: Iterable[RawRecord], needles: Needles, budget: Budget, seen: Seen) -> None:
        for record in records:
            budget.check(len(record.value))
            searched = needles.search(record, budget.check_time)
            budget.spend(searched.size_bytes)
            for mid, sighting in searched.found:
                seen.sightings.setdefault(mid, []).append(sighting)

    def _read_receipts(
        self, records: Sequence[RawRecord], batch_ids: Collection[str], budget: Budget, found: dict[str, BatchFacts]
    ) -> None:
        for record in records:
            budget.check(len(record.value))
            budget.spend(len(record.value))
            receipt = decode_receipt(record.headers)
            if receipt is None:
                receipt = foreign_receipt(record.topic, record.partition, record.offset, record.append_time_ms, 0, 0)
                if receipt.batch_id in batch_ids:
                    split = split_record(record, self._settings.max_inflated_bytes, self._settings.max_batch_events)
                    receipt = split.receipt if isinstance(split, UnreadableBatch) else split[0]
            if receipt.batch_id in batch_ids:
                found.setdefault(receipt.batch_id, facts_of(receipt, record))
