"""A publisher in memory: the protocol of :class:`ingest.publish.Publisher`, and the faults of Kafka at will."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ingest.publish import MakeReceipt, NotPublishedError, OutcomeUnknownError
from midstream.receipt import Receipt, encode_receipt


@dataclass
class MemoryPublisher:
    ready: bool = True
    fault: Exception | None = None
    gate: asyncio.Event | None = None
    """Set: acknowledgements wait for it."""
    published: list[tuple[Receipt, bytes, bytes]] = field(default_factory=list)
    stopped_after_s: float | None = None

    async def start(self) -> None:
        pass

    async def stop(self, timeout_s: float) -> None:
        self.stopped_after_s = timeout_s

    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        try:
            if isinstance(self.fault, NotPublishedError):
                raise self.fault
            receipt = make_receipt("memory", len(self.published))
            encode_receipt(receipt)
            self.published.append((receipt, body, key))
            if self.gate is not None:
                await self.gate.wait()
            if self.fault is not None:
                raise self.fault
        finally:
            release()


NOT_PUBLISHED = NotPublishedError("away")
OUTCOME_UNKNOWN = OutcomeUnknownError("no acknowledgement")
