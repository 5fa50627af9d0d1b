"""Makes a batch durable: in Kafka, and while Kafka is away in the spool.

Delivery contract: when :meth:`Keeper.keep` returns, every byte is durable and the batch reaches ``telemetry.raw``, at
least once, under one receipt. A batch that was handed to Kafka and not acknowledged is copied into the spool with the
number it had: whichever of the two comes first, the other is a replay of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from ingest.body import Hold
from ingest.caretaker import Caretaker
from ingest.publish import MakeReceipt, NotPublishedError, OutcomeUnknownError, Publisher
from ingest.received import Received
from ingest.replies import ErrorCode
from ingest.spool.spool import SpoolFailedError, SpoolFullError, SpoolUnknownError
from midstream.kafka.producer import RecordTooLarge
from midstream.receipt import Receipt
from midstream.settings import Settings

MakeReceiptAt = Callable[[int, str, int], Receipt]
"""Makes a batch's receipt from its moment of receipt (epoch ms), the name of the collector and its sequence number."""


class NotKeptError(Exception):
    """The batch could not be made durable, as ``code`` says, and nothing of it was kept."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


class NotKnownError(Exception):
    """The batch was handed on, and neither Kafka nor the disk has said that it has it."""


class Keeper:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        self._publisher = publisher
        self._received = Received()
        self._caretaker = Caretaker(settings, publisher, self._received)
        self._stopping = False

    async def start(self) -> None:
        """Begin; Kafka may come later."""
        await self._publisher.start()
        await self._caretaker.start()

    async def stop(self, timeout_s: float) -> None:
        """Take no batch more; drain the spool and finish what was handed to Kafka, for at most ``timeout_s``."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await self._caretaker.stop(deadline)
        await self._publisher.stop(max(0.0, deadline - loop.time()))

    @property
    def ready(self) -> bool:
        """Whether a batch given now would be durable, as far as is known."""
        return self.obstacle is None

    @property
    def obstacle(self) -> ErrorCode | None:
        """Why a batch given now would be refused, as far as is known; None when it would not."""
        spool = self._caretaker.spool
        if not self._caretaker.open or spool is None:
            return ErrorCode.KAFKA_UNAVAILABLE
        if self._publisher.ready or spool.ready:
            return None
        return ErrorCode.SPOOL_FULL if spool.full else ErrorCode.KAFKA_UNAVAILABLE

    async def keep(self, body: bytes, key: bytes, make_receipt: MakeReceiptAt, hold: Hold) -> None:
        """Return when the batch is durable. ``hold`` is shared with whoever still has the body then.

        Raises:
            NotKeptError: nothing of it was kept.
            NotKnownError: it may have been kept or not.
        """
        if self._stopping:
            raise NotKeptError(ErrorCode.KAFKA_UNAVAILABLE)
        number, received_at_ms = self._received.enter()
        hold.then(lambda: self._received.leave(number))

        def make(collector: str, sequence: int) -> Receipt:
            return make_receipt(received_at_ms, collector, sequence)

        if self._publisher.ready:
            hold.share()
            try:
                await self._publisher.publish(body, key, make, hold.release)
            except NotPublishedError:
                pass
            except RecordTooLarge:
                raise NotKeptError(ErrorCode.BODY_TOO_LARGE) from None
            except OutcomeUnknownError as unknown:
                await self._copy(body, key, unknown.receipt)
                return
            else:
                return
        await self._spool(body, key, received_at_ms, make)

    async def _spool(self, body: bytes, key: bytes, received_at_ms: int, make: MakeReceipt) -> None:
        spool = self._caretaker.spool
        if spool is None:
            raise NotKeptError(ErrorCode.KAFKA_UNAVAILABLE)
        try:
            await spool.append(
                body, key, received_at_ms, lambda collector, sequence: _spooled(make(collector, sequence))
            )
        except SpoolFullError:
            raise NotKeptError(ErrorCode.SPOOL_FULL) from None
        except SpoolFailedError:
            raise NotKeptError(ErrorCode.KAFKA_UNAVAILABLE) from None
        except SpoolUnknownError:
            raise NotKnownError from None

    async def _copy(self, body: bytes, key: bytes, receipt: Receipt) -> None:
        spool = self._caretaker.spool
        if spool is None:
            raise NotKnownError
        try:
            await spool.append_copy(body, key, _spooled(receipt))
        except (SpoolFullError, SpoolFailedError, SpoolUnknownError):
            raise NotKnownError from None


def _spooled(receipt: Receipt) -> Receipt:
    return replace(receipt, source="spool")
