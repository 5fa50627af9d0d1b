"""Writes dimension rows to the compacted topic ``dimensions``: for the api and ``midstream dimensions load``.

A row is done when Kafka has acknowledged it with ``acks=all``. A row may be written twice (an answer of the
broker was lost): readers go by its version. Rows of one key share a partition, chosen by CRC-32 of the key as
librdkafka's partitioner ``consistent`` does it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Coroutine, Sequence
from functools import partial

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from midstream.dimensions import Dimension, encode_dimension
from midstream.kafka.connection import connection
from midstream.kafka.schemas import announce
from midstream.logs import get_logger
from midstream.metrics import DIMENSION_IN_FLIGHT_BYTES
from midstream.settings import Settings
from midstream.topics import DIMENSIONS, MAX_MESSAGE_BYTES

_log = get_logger(__name__)

MAX_IN_FLIGHT_BYTES = 16 * 1024 * 1024
_MAX_BATCH_BYTES = 512 * 1024
_MAX_UNSENT_BYTES = 1024 * 1024


class PublishError(Exception):
    """Kafka did not acknowledge; whether the row is there is not known."""


class DimensionPublisher:
    """A producer that connects when first needed, with bounded bytes under way. Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.timeout_s = settings.kafka_timeout_ms / 1000
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._in_flight_bytes = 0
        self._room = asyncio.Event()

    async def publish(self, row: Dimension) -> None:
        """Return when Kafka has acknowledged the row.

        Raises:
            PublishError: it did not within ``kafka_timeout_ms``.
        """
        await self._send(row.key, encode_dimension(row))

    async def forget(self, row: Dimension) -> None:
        """Have Kafka forget an object whose last row this is, when it compacts the topic next; return when it has
        acknowledged that.

        Raises:
            PublishError: it did not within ``kafka_timeout_ms``.
        """
        await self._send(row.key, None)

    async def _send(self, key: bytes, value: bytes | None) -> None:
        producer, partitions = await self.connect()
        # Not as a batch of its own: rows that come at the same time share one.
        sending = producer.send(DIMENSIONS.name, value, key, partition=partition_of(key, partitions))
        future = await self._submit(sending, len(key) + len(value or b""))
        await asyncio.wait([future], timeout=self.timeout_s)  # leaves it uncancelled: the producer holds it
        if not future.done():
            raise PublishError("Kafka did not acknowledge in time")
        if error := future.exception():
            raise PublishError(f"Kafka did not acknowledge: {_words(error)}")

    def bulk(self) -> Bulk:
        """Begin to write many rows."""
        return Bulk(self)

    async def close(self) -> None:
        """Give what is under way the usual time, then close the connection."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                await asyncio.wait_for(producer.stop(), self.timeout_s)
            except (TimeoutError, KafkaError) as error:
                _log.warning("dimensions.close_failed", error=type(error).__name__)

    async def connect(self) -> tuple[AIOKafkaProducer, int]:
        """Return the producer and the topic's number of partitions.

        Raises:
            PublishError: Kafka is away, or has no such topic.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                async with self._starting:
                    producer = self._producer
                    if producer is None:
                        producer = await self._start()
                        self._producer = producer
                return producer, len(await producer.partitions_for(DIMENSIONS.name))
        except (KafkaError, TimeoutError) as error:
            raise PublishError(f"Kafka cannot be reached: {_words(error)}") from error

    async def submit(self, batch: BatchBuilder, size_bytes: int, partition: int) -> asyncio.Future[object]:
        """Hand over a batch when there is room for it; the future is done when Kafka has acknowledged it.

        Raises:
            PublishError: there was no room in time, or Kafka is away.
        """
        producer, _ = await self.connect()
        return await self._submit(producer.send_batch(batch, DIMENSIONS.name, partition=partition), size_bytes)

    async def _submit(
        self, sending: Coroutine[object, object, asyncio.Future[object]], size_bytes: int
    ) -> asyncio.Future[object]:
        try:
            async with asyncio.timeout(self.timeout_s):
                while self._in_flight_bytes and self._in_flight_bytes + size_bytes > MAX_IN_FLIGHT_BYTES:
                    self._room.clear()
                    await self._room.wait()
                self._count(size_bytes)
                try:
                    future = await sending
                except BaseException:
                    self._count(-size_bytes)
                    raise
        except (KafkaError, TimeoutError) as error:
            raise PublishError(f"Kafka takes no rows: {_words(error)}") from error
        finally:
            sending.close()
        future.add_done_callback(partial(self._done, size_bytes))
        return future

    def _done(self, size_bytes: int, future: asyncio.Future[object]) -> None:
        self._count(-size_bytes)
        if not future.cancelled():
            future.exception()  # looked at, also when the one who sent the row has stopped waiting

    def _count(self, size_bytes: int) -> None:
        self._in_flight_bytes += size_bytes
        DIMENSION_IN_FLIGHT_BYTES.inc(size_bytes)
        if size_bytes < 0:
            self._room.set()

    async def _start(self) -> AIOKafkaProducer:
        # Not idempotent on purpose: rows may repeat, and such a producer gives a batch up in time and never
        # needs to be made anew, where an idempotent one waits for ever while the broker is away.
        producer = AIOKafkaProducer(
            **connection(self._settings),
            client_id="midstream-dimensions",
            acks="all",
            enable_idempotence=False,
            compression_type="zstd",
            max_batch_size=_MAX_BATCH_BYTES,
            max_request_size=MAX_MESSAGE_BYTES,
            request_timeout_ms=int(self.timeout_s * 1000),
        )
        try:
            await producer.start()
            await announce(producer, [DIMENSIONS.name])
        except BaseException:
            await producer.stop()
            raise
        return producer


class Bulk:
    """Rows on their way, in batches of half a MiB a partition."""

    def __init__(self, publisher: DimensionPublisher) -> None:
        self._publisher = publisher
        self._producer: AIOKafkaProducer | None = None
        self._partitions = 0
        self._filling: dict[int, _Filling] = {}
        self._unsent_bytes = 0
        self._waiting: set[asyncio.Future[object]] = set()
        self._error: BaseException | None = None
        self._acknowledged = 0

    @property
    def acknowledged(self) -> int:
        """Rows that Kafka has acknowledged so far."""
        return self._acknowledged

    async def add(self, rows: Sequence[Dimension]) -> None:
        """Take rows; wait while as many bytes are under way as may be.

        Raises:
            PublishError: Kafka did not take these or earlier ones.
        """
        self._check()
        if self._producer is None:
            self._producer, self._partitions = await self._publisher.connect()
        for row in rows:
            key, value = row.key, encode_dimension(row)
            partition = partition_of(key, self._partitions)
            filling = self._filling.get(partition)
            if filling is None or not filling.append(key, value):
                if filling is not None:
                    await self._send(partition)
                filling = self._filling[partition] = _Filling(self._producer)
                filling.append(key, value)  # the first row always fits
            self._unsent_bytes += len(key) + len(value)
        if self._unsent_bytes >= _MAX_UNSENT_BYTES:
            await self._send_all()

    async def finish(self) -> None:
        """Send the rest and wait until Kafka has acknowledged every row.

        Raises:
            PublishError: it did not in time.
        """
        self._check()
        await self._send_all()
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=self._publisher.timeout_s)
        self._check()
        if self._waiting:
            raise PublishError("Kafka did not acknowledge in time")

    async def _send_all(self) -> None:
        for partition in list(self._filling):
            await self._send(partition)

    async def _send(self, partition: int) -> None:
        filling = self._filling.pop(partition)
        self._unsent_bytes -= filling.size_bytes
        filling.batch.close()  # no other sender of this process may add to it
        future = await self._publisher.submit(filling.batch, filling.size_bytes, partition)
        self._waiting.add(future)
        future.add_done_callback(lambda done: self._settle(done, filling.rows))

    def _settle(self, future: asyncio.Future[object], rows: int) -> None:
        self._waiting.discard(future)
        if future.cancelled():
            self._error = self._error or asyncio.CancelledError()
        elif error := future.exception():
            self._error = self._error or error
        else:
            self._acknowledged += rows

    def _check(self) -> None:
        if self._error is not None:
            raise PublishError(f"Kafka did not acknowledge: {_words(self._error)}")


class _Filling:
    """A batch of one partition that still takes rows."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.batch = producer.create_batch()
        self.rows = 0
        self.size_bytes = 0

    def append(self, key: bytes, value: bytes) -> bool:
        """Return False when the batch is full."""
        if self.batch.append(timestamp=None, key=key, value=value) is None:
            return False
        self.rows += 1
        self.size_bytes += len(key) + len(value)
        return True


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key."""
    return zlib.crc32(key) % partitions


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
