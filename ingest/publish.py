"""Makes a batch durable: one record of ``telemetry.raw``, acknowledged by all in-sync replicas.

Delivery contract: when :meth:`KafkaPublisher.publish` returns, the batch is durable. ``OutcomeUnknownError``: it may
become durable yet; whoever keeps it elsewhere keeps it under the same receipt. ``NotPublishedError``: nothing of it
will appear.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Protocol

import xxhash
from aiokafka.errors import KafkaError

from midstream.deadlines import Deadlines
from midstream.kafka.lone import open_lone_producer
from midstream.kafka.producer import Life, Producer, ProducerUnavailable
from midstream.receipt import Receipt, encode_receipt
from midstream.settings import Settings
from midstream.topics import COLLECTORS, DEVICE, RAW, RECEIPT_HEADER

MakeReceipt = Callable[[str, int], Receipt]
"""Makes a batch's receipt from the name of the collector and the batch's sequence number."""


class NotPublishedError(Exception):
    """Kafka does not take batches now."""


class OutcomeUnknownError(Exception):
    """The batch was handed to Kafka under ``receipt``, and no acknowledgement came."""

    def __init__(self, message: str, receipt: Receipt) -> None:
        super().__init__(message)
        self.receipt = receipt


class NotAcknowledgedError(Exception):
    """The record was handed to Kafka, and no acknowledgement came: it may become durable yet."""


class SendAlone(Protocol):
    """Makes one record durable, sent by itself."""

    async def __call__(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        """Return when it is durable.

        Raises:
            NotPublishedError: it was not acknowledged.
            RecordTooLarge: Kafka does not take it, now or later.
        """


class Publisher(Protocol):
    """Where batches become durable."""

    @property
    def ready(self) -> bool:
        """Whether a batch published now would be durable, as far as is known."""

    async def start(self) -> None:
        """Begin; what it needs may come later."""

    async def stop(self, timeout_s: float) -> None:
        """Finish what was handed over, for at most ``timeout_s``."""

    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        """Make ``body`` durable; batches of one ``key`` keep their order ("" has none).

        ``release`` is called once, when the body is held no longer, which may be after this has raised.

        Raises:
            NotPublishedError: it was not handed over.
            RecordTooLarge: it never will be.
            OutcomeUnknownError: it was, and no acknowledgement came in time, or none is to be expected soon.
        """

    async def send(self, topic: str, key: bytes, value: bytes, release: Callable[[], None]) -> None:
        """Make a record durable; records of one key keep their order. ``release``: see :meth:`publish`.

        Raises:
            NotPublishedError: it was not handed over.
            RecordTooLarge: it never will be.
            NotAcknowledgedError: it was, and no acknowledgement came in time, or none is to be expected soon.
        """

    async def hand_over(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[object]:
        """Put a record as it is into the producer's buffer; return the future of its acknowledgement.

        Records of one key keep their order. The future must not be cancelled.

        Raises:
            NotPublishedError: it was not handed over.
            RecordTooLarge: it never will be.
        """

    def alone(self) -> AbstractAsyncContextManager[SendAlone]:
        """Open a way for records that Kafka may refuse, which no other record has to suffer for.

        Raises:
            NotPublishedError: Kafka is away.
        """


class _Lane:
    """The batches of one partition: numbered as they are handed over, so the numbers have no gap."""

    def __init__(self, collector: str) -> None:
        self.collector = collector
        self.lock = asyncio.Lock()
        self.next_sequence = 0


class KafkaPublisher:
    """Publishes on ``telemetry.raw``, and sends to other topics.

    A receipt's ``collector`` is the life of the producer and the partition, for an idempotent producer
    keeps what it wrote gapless there and nowhere else: should a batch fail after it was numbered, all that
    follow it in the lane fail too, and the next life counts from 0 again under another name.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = Producer(settings, [RAW.name, COLLECTORS.name, DEVICE.name])
        self._deadlines = Deadlines(settings.kafka_timeout_ms / 1000)
        self._lanes: dict[int, _Lane] = {}
        self._lanes_of = ""
        self._spread = count()

    @property
    def ready(self) -> bool:
        """See :class:`Publisher`."""
        return self._producer.ready

    async def start(self) -> None:
        """See :class:`Publisher`."""
        await self._producer.start()

    async def stop(self, timeout_s: float) -> None:
        """See :class:`Publisher`."""
        await self._producer.stop(timeout_s)

    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        """See :class:`Publisher`."""
        delivery: asyncio.Future[object] | None = None
        try:
            life = self._producer.life()
            partition = self._partition(life.partitions(RAW.name), key)
            lane = self._lane(life, partition)
            with life.while_ready(self._deadlines):
                async with lane.lock:
                    if not life.ready:  # it may have ended or stalled while this waited
                        raise NotPublishedError("earlier batches were not acknowledged in time")
                    receipt = make_receipt(lane.collector, lane.next_sequence)
                    headers = [(RECEIPT_HEADER, encode_receipt(receipt))]
                    delivery = await life.hand_over(RAW.name, partition, key or None, body, headers, release)
                    lane.next_sequence += 1
                await delivery
        except ProducerUnavailable as error:
            raise NotPublishedError(str(error)) from None
        except TimeoutError:
            _look_back(life, delivery)
            if delivery is None:
                raise NotPublishedError("earlier batches were not acknowledged in time") from None
            if not _arrived(delivery):
                raise OutcomeUnknownError("no acknowledgement came in time", receipt) from None
        except KafkaError as error:
            raise OutcomeUnknownError(f"the producer failed: {type(error).__name__}", receipt) from None
        finally:
            if delivery is None:
                release()

    async def send(self, topic: str, key: bytes, value: bytes, release: Callable[[], None]) -> None:
        """See :class:`Publisher`."""
        delivery: asyncio.Future[object] | None = None
        try:
            life = self._producer.life()
            partition = self._partition(life.partitions(topic), key)
            with life.while_ready(self._deadlines):
                delivery = await life.hand_over(topic, partition, key or None, value, (), release)
                await delivery
        except ProducerUnavailable as error:
            raise NotPublishedError(str(error)) from None
        except TimeoutError:
            _look_back(life, delivery)
            if delivery is None:
                raise NotPublishedError("earlier records were not acknowledged in time") from None
            if not _arrived(delivery):
                raise NotAcknowledgedError("no acknowledgement came in time") from None
        except KafkaError as error:
            raise NotAcknowledgedError(f"the producer failed: {type(error).__name__}") from None
        finally:
            if delivery is None:
                release()

    async def hand_over(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[object]:
        """See :class:`Publisher`."""
        try:
            life = self._producer.life()
            partition = self._partition(life.partitions(topic), key)
            with life.while_ready(self._deadlines):
                return await life.hand_over(topic, partition, key or None, value, headers)
        except (ProducerUnavailable, TimeoutError) as error:
            raise NotPublishedError(str(error)) from None

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[SendAlone]:
        """See :class:`Publisher`."""

        async def send(topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
            try:
                partition = self._partition(await producer.partitions(topic), key)
                await producer.send(topic, partition, key or None, value, headers)
            except ProducerUnavailable as error:
                raise NotPublishedError(str(error)) from None

        try:
            async with open_lone_producer(self._settings) as producer:
                yield send
        except ProducerUnavailable as error:
            raise NotPublishedError(str(error)) from None

    def _partition(self, partitions: int, key: bytes) -> int:
        number = xxhash.xxh3_64_intdigest(key) if key else next(self._spread)
        return int(number % partitions)

    def _lane(self, life: Life, partition: int) -> _Lane:
        if self._lanes_of != life.id:
            self._lanes = {}
            self._lanes_of = life.id
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = _Lane(f"{life.id}/{partition}")
        return lane


def _look_back(life: Life, delivery: asyncio.Future[object] | None) -> None:
    """Say that Kafka is slow, where a record waited for its whole time."""
    if life.ready and (delivery is None or not _arrived(delivery)):
        life.stall()


def _arrived(delivery: asyncio.Future[object]) -> bool:
    return delivery.done() and not delivery.cancelled() and delivery.exception() is None
