"""An idempotent producer (``acks=all``) that connects in the background, and is made anew when it has failed for good.

Delivery contract: the future that :meth:`Life.hand_over` returns is done when every in-sync replica has the record.
While the broker is away an idempotent producer keeps a record and tries again for as long as it lives, so a caller
who stops waiting does not know the outcome. A delivery that *fails* leaves a hole in the producer's sequence numbers,
after which the broker refuses whatever follows on that partition: that life is over, and another begins. So is one
that is not ready for longer than ``kafka_timeout_ms``: it would hold its records in memory as long as Kafka is away.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerClosed,
    RecordListTooLargeError,
)
from uuid_utils import uuid7

from midstream.deadlines import Deadlines, Limit
from midstream.kafka.access import Refusal, look
from midstream.kafka.batches import Batches, Release
from midstream.kafka.compression import compress_quickly
from midstream.kafka.connection import connection
from midstream.kafka.quiet import quiet_aiokafka
from midstream.kafka.schemas import announce
from midstream.logs import get_logger
from midstream.metrics import PRODUCER_REBUILDS
from midstream.settings import Settings
from midstream.topics import MAX_MESSAGE_BYTES, OVERHEAD_BYTES

_log = get_logger(__name__)

_LINGER_S = 0.01
"""A request to the broker costs several times what a record adds to it, here and there."""

_MAX_BATCH_BYTES = 1024 * 1024
_PROBE_INTERVAL_S = 1.0
_PROBE_TIMEOUT_S = 2.0
_GIVE_UP_S = 0.5  # to close a producer whose brokers do not answer
_FIRST_BACKOFF_S = 0.2
_LAST_BACKOFF_S = 5.0
_SETTLED_AFTER_S = 30.0  # a life that lasted so long does not count as one more failure in a row


class ProducerUnavailable(Exception):  # noqa: N818  a state: Kafka cannot take a record now
    """Kafka does not take the record now. It was not handed over: nothing of it will appear."""


class RecordTooLarge(ValueError):  # noqa: N818  says what the record is
    """The record is larger than a topic takes."""


def is_refusal(error: BaseException | None) -> bool:
    """Whether the broker does not take a record, or one of those that were sent with it, for its size: trying again
    does not help. Its limit may be below ours."""
    return isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError))


class Life:
    """One connected producer, from its first record to the failure that ends it. ``id`` names it."""

    def __init__(self, producer: AIOKafkaProducer, timeout_s: float) -> None:
        self.id = str(uuid7())
        self.failed = asyncio.Event()
        self._producer = producer
        self._timeout_s = timeout_s
        self._batches = Batches(producer, _LINGER_S, MAX_MESSAGE_BYTES + OVERHEAD_BYTES, self._settled)
        self._stalled = False
        self._reachable = True
        self._closing = False
        self._watchers: set[Callable[[], None]] = set()

    @property
    def ready(self) -> bool:
        """Whether a record handed over now would be acknowledged, as far as is known."""
        return self._reachable and not self._stalled and not self.failed.is_set()

    @property
    def reachable(self) -> bool:
        """Whether the brokers answered when they were last asked."""
        return self._reachable

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of one of the producer's topics."""
        found = self._producer.client.cluster.partitions_for_topic(topic)
        if not found:
            raise ProducerUnavailable(f"topic {topic} has no partitions")
        return len(found)

    async def hand_over(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
        release: Release | None = None,
    ) -> asyncio.Future[object]:
        """Put a record into the producer's buffer; return the future of its acknowledgement.

        Waits while a batch of this partition is full. Once it has returned, the record is sent whatever the caller
        does, and ``release`` is called when it is held no longer; cancelled before, it is not. Whoever cancels the
        future takes nothing back.

        Raises:
            ProducerUnavailable: it was not taken.
            RecordTooLarge: it never will be.
        """
        try:
            return await self._batches.add(topic, partition, key, value, headers, self._timeout_s, release)
        except MessageSizeTooLargeError:
            raise RecordTooLarge(f"a record of {len(value)} bytes is larger than topic {topic} takes") from None
        except KafkaTimeoutError:
            self.stall()
            raise ProducerUnavailable("the batch before it was not acknowledged in time") from None
        except KafkaError as error:
            self.fail(error)
            raise ProducerUnavailable(f"the producer failed: {type(error).__name__}") from None

    def stall(self) -> None:
        """Say that an acknowledgement did not come in time; the next one that comes takes it back."""
        self._stalled = True
        self._tell_watchers()

    def fail(self, error: BaseException) -> None:
        """End this life."""
        if not self.failed.is_set():
            _log.error("producer.failed", life=self.id, error=type(error).__name__, message=str(error))
            self.failed.set()
            self._tell_watchers()

    def watch(self, lost: Callable[[], None]) -> None:
        """Call ``lost`` whenever this life stops being ready, until :meth:`unwatch`."""
        self._watchers.add(lost)

    def unwatch(self, lost: Callable[[], None]) -> None:
        """Call ``lost`` no more."""
        self._watchers.discard(lost)

    def _tell_watchers(self) -> None:
        for lost in tuple(self._watchers):
            lost()

    def while_ready(self, deadlines: Deadlines) -> Limit:
        """Wait inside, in a ``with`` block, for as long as ``deadlines`` say and no longer than this life is ready.

        Raises:
            TimeoutError: at its end: what is inside was cancelled, for either reason.
        """
        return _WhileReady(self, deadlines)

    def _settled(self, error: BaseException | None) -> None:
        if error is None:
            self._stalled = False
        else:
            self.fail(error)

    async def probe(self) -> None:
        """Ask the brokers for metadata, to know whether they can be reached."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):  # wait_for() of Python 3.11 can lose a cancellation
                reachable = bool(await self._producer.client.force_metadata_update())
        except (TimeoutError, KafkaError):
            reachable = False
        if reachable != self._reachable:
            _log.info("kafka.reachable") if reachable else _log.warning("kafka.unreachable")
            self._reachable = reachable
            if not reachable:
                self._tell_watchers()

    async def close(self, timeout_s: float) -> None:
        """Wait for what is pending, then close; what is not acknowledged by then has an unknown outcome."""
        self._closing = not self.failed.is_set()
        self.failed.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._batches.flush()
                await self._producer.stop()
        except TimeoutError:
            await self._abandon()
        except KafkaError as error:
            _log.warning("producer.close_failed", life=self.id, error=type(error).__name__)
        finally:
            self._batches.close(ProducerClosed())

    async def _abandon(self) -> None:
        """End a producer that cannot flush: its own stop() waits for batches that it never gives up.

        Private parts of aiokafka 0.14, which has no public way to stop an idempotent producer without its broker.
        """
        self._producer._closed = True  # else it complains when it is collected
        task = self._producer._sender.sender_task
        if task is not None:
            task.cancel()
        await self._producer.client.close()  # ends the requests that the task waits for
        if task is not None:
            await asyncio.wait([task], timeout=_PROBE_TIMEOUT_S)
        accumulator = self._producer._message_accumulator
        accumulator.fail_all(ProducerClosed())
        for batches in (*accumulator._batches.values(), accumulator._pending_batches):
            for batch in batches:  # nobody waits for it, and asyncio would complain that nobody looked
                if batch._drain_waiter.done() and not batch._drain_waiter.cancelled():
                    batch._drain_waiter.exception()


class _WhileReady(Limit):
    __slots__ = ("_life",)

    def __init__(self, life: Life, deadlines: Deadlines) -> None:
        super().__init__(deadlines)
        self._life = life

    def __enter__(self) -> None:
        super().__enter__()
        self._life.watch(self.end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._life.unwatch(self.end)
        super().__exit__(kind, error, traceback)


class Producer:
    """Keeps one :class:`Life` after another connected. Belongs to one event loop."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        quiet_aiokafka()
        self._settings = settings
        self._topics = tuple(topics)
        self._life: Life | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether a record handed over now would be acknowledged, as far as is known."""
        return self._life is not None and self._life.ready

    def life(self) -> Life:
        """Return the life to hand records to.

        Raises:
            ProducerUnavailable: Kafka is away, or was never there.
        """
        life = self._life
        if life is None or not life.ready:
            raise ProducerUnavailable("Kafka does not take records now")
        return life

    async def start(self) -> None:
        """Begin to connect, in the background: Kafka may come later."""
        self._task = asyncio.create_task(self._keep_alive(), name="producer")

    async def stop(self, timeout_s: float) -> None:
        """Flush and close, for at most ``timeout_s``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        life, self._life = self._life, None
        if life is not None:
            self._close_in_background(life, timeout_s)
        if self._closing:
            await asyncio.wait(self._closing, timeout=timeout_s + 2 * _PROBE_TIMEOUT_S)

    def _close_in_background(self, life: Life, timeout_s: float) -> None:
        task = asyncio.create_task(life.close(timeout_s), name="producer-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _keep_alive(self) -> None:
        failures = 0
        while True:
            life = await self._connect(failures)
            self._life = life
            _log.info("producer.connected", life=life.id)
            began = time.monotonic()
            await self._watch_over(life)
            self._life = None
            PRODUCER_REBUILDS.inc()
            self._close_in_background(life, self._settings.kafka_timeout_ms / 1000 if life.reachable else _GIVE_UP_S)
            failures = 0 if time.monotonic() - began > _SETTLED_AFTER_S else failures + 1

    async def _watch_over(self, life: Life) -> None:
        """Return when a life has failed, or was not ready for so long that the records it holds are better let go."""
        give_up_after_s = self._settings.kafka_timeout_ms / 1000
        ready_at = time.monotonic()
        while not life.failed.is_set():
            try:
                async with asyncio.timeout(_PROBE_INTERVAL_S):
                    await life.failed.wait()
            except TimeoutError:
                await life.probe()
                if life.ready:
                    ready_at = time.monotonic()
                elif time.monotonic() - ready_at > give_up_after_s:
                    life.fail(KafkaTimeoutError(f"not ready for {give_up_after_s:g} s"))

    async def _connect(self, failures: int) -> Life:
        """Connect, for as long as it takes; ``failures`` lives in a row ended early."""
        said = ""
        while True:
            if failures:
                backoff_s = min(_LAST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures - 1, 10))
                await asyncio.sleep(backoff_s * random.uniform(0.8, 1.2))  # noqa: S311  spreads reconnects
            producer: AIOKafkaProducer | None = None
            limit_s = self._settings.kafka_timeout_ms / 1000
            try:
                producer = make_producer(self._settings, idempotent=True)
                async with asyncio.timeout(limit_s):
                    await producer.start()
                    for topic in self._topics:
                        await producer.partitions_for(topic)
                # A time of its own: a machine too slow for both in one would never get through.
                async with asyncio.timeout(limit_s):
                    await announce(producer, self._topics)
            except (KafkaError, OSError, TimeoutError) as error:
                if producer is not None:
                    await Life(producer, limit_s).close(_PROBE_TIMEOUT_S)
                refusal = await self._refusal()
                name = refusal.fault if refusal else type(error).__name__
                if name != said:  # one line for one thing, not one a try
                    said = name
                    if refusal:
                        _log.error("kafka.refused", code=said, error=str(refusal))
                    else:
                        _log.warning(
                            "kafka.not_connected",
                            servers=self._settings.kafka_servers,
                            error=said,
                            message=str(error),
                        )
                failures += 1
            except asyncio.CancelledError:
                if producer is not None:
                    await Life(producer, limit_s).close(_PROBE_TIMEOUT_S)
                raise
            else:
                return Life(producer, limit_s)

    async def _refusal(self) -> Refusal | None:
        """Return why Kafka refuses us, where it may: a password was changed, a certificate has expired."""
        if self._settings.kafka_security == "plaintext":
            return None
        try:
            refusals = await look(self._settings, _PROBE_TIMEOUT_S)
        except KafkaError:  # files of ours: it is not Kafka that refuses
            return None
        return next((one for one in refusals if one.fault.is_final), None)


def make_producer(settings: Settings, *, idempotent: bool) -> AIOKafkaProducer:
    """Return a producer that is not connected yet."""
    compress_quickly()
    return AIOKafkaProducer(
        **connection(settings),
        client_id="midstream",
        acks="all",
        enable_idempotence=idempotent,
        compression_type="zstd",
        max_batch_size=_MAX_BATCH_BYTES,
        max_request_size=MAX_MESSAGE_BYTES + OVERHEAD_BYTES,
        request_timeout_ms=settings.kafka_timeout_ms,
        retry_backoff_ms=100,
    )
