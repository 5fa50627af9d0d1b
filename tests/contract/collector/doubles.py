"""A publisher in memory: the protocol of :class:`ingest.publish.Publisher`, and the faults of Kafka at will."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka.errors import MessageSizeTooLargeError

from ingest.publish import MakeReceipt, NotAcknowledgedError, NotPublishedError, OutcomeUnknownError, SendAlone
from midstream.kafka.marks import Mark, decode_mark
from midstream.kafka.producer import RecordTooLarge
from midstream.receipt import Receipt, decode_receipt, encode_receipt
from midstream.topics import COLLECTORS, DEVICE, RAW


class UnknownOutcome(Exception):  # noqa: N818  a fault to be set
    """Batches are handed over, and no acknowledgement comes."""


@dataclass
class MemoryPublisher:
    ready: bool = True
    fault: Exception | None = None
    """Of :meth:`publish`."""
    gate: asyncio.Event | None = None
    """Set: acknowledgements wait for it."""
    published: list[tuple[Receipt, bytes, bytes]] = field(default_factory=list)
    """Batches as apps sent them."""
    drained: list[tuple[Receipt, bytes, bytes]] = field(default_factory=list)
    """Batches that came as records of the spool."""
    reports: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Key and value of records of ``device.telemetry``."""
    headers: list[bytes] = field(default_factory=list)
    """Of these, the receipt's own bytes."""
    marks: list[Mark] = field(default_factory=list)
    acknowledges: bool = True
    """Whether records that are handed over as they are get their acknowledgement."""
    refused: bytes | None = None
    """A body that holds this is refused."""
    broken: int = 0
    """Times that a refusal has ended a producer."""
    stopped_after_s: float | None = None

    async def start(self) -> None:
        pass

    async def stop(self, timeout_s: float) -> None:
        self.stopped_after_s = timeout_s

    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        try:
            if isinstance(self.fault, NotPublishedError) or not self.ready:
                raise self.fault or NotPublishedError("away")
            receipt = make_receipt("memory", len(self.published))
            encode_receipt(receipt)
            self.published.append((receipt, body, key))
            if self.gate is not None:
                await self.gate.wait()
            if isinstance(self.fault, UnknownOutcome):
                raise OutcomeUnknownError("no acknowledgement", receipt)
            if self.fault is not None:
                raise self.fault
        finally:
            release()

    async def send(self, topic: str, key: bytes, value: bytes, release: Callable[[], None]) -> None:
        try:
            if isinstance(self.fault, NotPublishedError) or not self.ready:
                raise self.fault or NotPublishedError("away")
            assert topic == DEVICE.name
            self.reports.append((key, value))
            if self.gate is not None:
                await self.gate.wait()
            if isinstance(self.fault, UnknownOutcome):
                raise NotAcknowledgedError("no acknowledgement")
            if self.fault is not None:
                raise self.fault
        finally:
            release()

    async def hand_over(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[object]:
        if not self.ready:
            raise NotPublishedError("away")
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if topic == COLLECTORS.name:
            mark = decode_mark(value)
            assert key == mark.id.encode()
            self.marks.append(mark)
        elif self.refused is not None and self.refused in value:
            self.broken += 1
            done.set_exception(MessageSizeTooLargeError())
        else:
            self._take(topic, key, value, headers)
        if self.acknowledges and not done.done():
            done.set_result(None)
        return done

    def _take(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        assert topic == RAW.name
        receipt = decode_receipt(headers)
        assert receipt is not None
        self.drained.append((receipt, value, key))
        self.headers += [header for _, header in headers]

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[SendAlone]:
        async def send(topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
            if self.refused is not None and self.refused in value:
                raise RecordTooLarge("refused")
            self._take(topic, key, value, headers)

        yield send


NOT_PUBLISHED = NotPublishedError("away")
OUTCOME_UNKNOWN = UnknownOutcome()
