"""Records on their way into a producer: of each partition one batch grows while the one before it is under way.

aiokafka lets each partition linger by itself, so that what comes within one linger leaves in as many requests as there
are partitions. Here a linger is for all partitions together, as in Kafka's own producer.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder

Release = Callable[[], None]

_Deliveries = list[tuple[asyncio.Future[object], Release | None]]


class _Line:
    """The batches of one partition."""

    __slots__ = ("growing", "grown", "is_due", "lock", "room", "under_way", "waiting")

    def __init__(self) -> None:
        self.growing: BatchBuilder | None = None
        self.grown: _Deliveries = []
        """Of the records in ``growing``."""
        self.under_way: _Deliveries | None = None
        """Of the records in the batch that Kafka has not acknowledged yet; there is one at a time."""
        self.is_due = False
        """Whether ``growing`` leaves as soon as none is under way."""
        self.waiting = 0
        """Who waits for room, in the order of ``lock``: nobody overtakes them."""
        self.lock = asyncio.Lock()
        self.room = asyncio.Event()


class Batches:
    """Fills batches for a producer that does not linger itself. Belongs to one event loop.

    They leave when the first of all records that wait has waited for ``linger_s``, or one is full: then those of all
    partitions leave together. ``settled`` is told how each ended, None being well. Memory is bounded by two batches a
    partition.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        linger_s: float,
        max_record_bytes: int,
        settled: Callable[[BaseException | None], None],
    ) -> None:
        self._producer = producer
        self._linger_s = linger_s
        self._max_record_bytes = max_record_bytes
        self._settled = settled
        self._lines: dict[tuple[str, int], _Line] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._error: BaseException | None = None

    async def add(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
        timeout_s: float,
        release: Release | None = None,
    ) -> asyncio.Future[object]:
        """Put a record into the batch of its partition; return the future of its acknowledgement, which a
        :class:`KafkaError` ends where none came.

        Waits while that batch is full, for ``timeout_s`` at the most. Whoever cancels the future takes nothing back;
        ``release`` is called when the record is held no longer.

        Raises:
            KafkaError: it was not taken.
        """
        headers = list(headers)  # aiokafka takes no other sequence
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, headers)
        if size > self._max_record_bytes:
            raise MessageSizeTooLargeError(f"a record of {size} bytes")
        line = self._lines.get((topic, partition))
        if line is None:
            line = self._lines[topic, partition] = _Line()
        if not line.waiting:
            delivery = self._append(line, key, value, headers, release)
            if delivery is not None:
                return delivery
        line.waiting += 1
        try:
            async with asyncio.timeout(timeout_s), line.lock:
                while (delivery := self._append(line, key, value, headers, release)) is None:
                    line.room.clear()
                    await line.room.wait()
                return delivery
        except TimeoutError:
            raise KafkaTimeoutError from None
        finally:
            line.waiting -= 1

    def _append(
        self,
        line: _Line,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
        release: Release | None,
    ) -> asyncio.Future[object] | None:
        """Return None where the batch is full."""
        if self._error is not None:
            raise copy.copy(self._error)
        if line.growing is None:
            line.growing = self._producer.create_batch()
        if line.growing.append(timestamp=None, key=key, value=value, headers=headers) is None:
            self._let_go()
            return None
        loop = asyncio.get_running_loop()
        delivery: asyncio.Future[object] = loop.create_future()
        line.grown.append((delivery, release))
        if self._timer is None:
            self._timer = loop.call_later(self._linger_s, self._let_go)
        return delivery

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="batches")
        self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for (topic, partition), line in list(self._lines.items()):  # there may be more when we are back
                if line.growing is None:
                    continue
                if line.under_way is None:
                    await self._hand_over(topic, partition, line, line.growing)
                else:
                    line.is_due = True

    async def _hand_over(self, topic: str, partition: int, line: _Line, batch: BatchBuilder) -> None:
        deliveries = line.under_way = line.grown
        line.growing, line.grown, line.is_due = None, [], False
        line.room.set()
        try:
            acknowledged = await self._producer.send_batch(batch, topic, partition=partition)
        except Exception as error:  # noqa: BLE001  whatever it is: none of them may wait for ever
            self._end(line, deliveries, error)
        else:
            acknowledged.add_done_callback(partial(self._ended, line, deliveries))

    def _ended(self, line: _Line, deliveries: _Deliveries, acknowledged: asyncio.Future[Any]) -> None:
        self._end(line, deliveries, KafkaError() if acknowledged.cancelled() else acknowledged.exception())

    def _end(self, line: _Line, deliveries: _Deliveries, error: BaseException | None) -> None:
        if line.under_way is not deliveries:
            return  # given up before
        line.under_way = None
        line.room.set()
        if error is not None and not isinstance(error, KafkaError):
            error = KafkaError(repr(error))
        self._settled(error)
        _settle(deliveries, error)
        if line.is_due:
            self._wake.set()

    async def flush(self) -> None:
        """Return when all that was added has been acknowledged, or has failed."""
        self._let_go()
        for line in list(self._lines.values()):
            while line.growing is not None or line.under_way is not None:
                line.room.clear()
                await line.room.wait()

    def close(self, error: BaseException) -> None:
        """Take no more, and give up what has not ended: its outcome is unknown."""
        self._error = error
        if self._timer is not None:
            self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
        for line in self._lines.values():
            deliveries = [*(line.under_way or ()), *line.grown]
            line.under_way, line.growing, line.grown = None, None, []
            line.room.set()
            _settle(deliveries, error)


def _settle(deliveries: _Deliveries, error: BaseException | None) -> None:
    for delivery, release in deliveries:
        if release is not None:
            release()
        if delivery.done():
            continue
        if error is None:
            delivery.set_result(None)
        else:
            delivery.set_exception(copy.copy(error))  # each has a traceback of its own
            delivery.exception()  # nobody may be waiting any more, and asyncio would complain
