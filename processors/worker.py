"""What the Faust workers have in common: the app's settings, how it starts, how it dies.

Workers are crash-only: an error that is not answered within a step ends the process, and the supervisor starts it
again. (An agent that Faust restarts keeps its stream, and the failed offsets stay a hole: robinhood/faust#189, #527.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NoReturn, cast

import faust
import uvloop
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from midstream.kafka.access import require_access_at_start, watch_access
from midstream.kafka.connection import connection, server_addresses
from midstream.kafka.schemas import look_up_in
from midstream.logs import configure_logs, get_logger
from midstream.metrics import FATAL_ERRORS, POISON_RECORDS
from midstream.probes import Heartbeat, serve_probes
from midstream.settings import Settings, SettingsError, get_settings
from midstream.without_pandas import do_without_pandas
from processors.lease import Lease
from processors.memory import give_back_what_is_freed, leave_out_what_is_imported
from processors.reachable import clickhouse_addresses, wait_until_reachable
from processors.stepped import after_first_step
from processors.stray import unless_cancelled

log = get_logger(__name__)

EXIT_CRASH = 70  # EX_SOFTWARE of sysexits.h
EXIT_CONFIG = 78  # EX_CONFIG


_FETCH_MAX_BYTES = 8 * 1024 * 1024
"""Of all partitions. The first record comes whole, however large; some such answers are held at once."""
_FETCH_PARTITION_BYTES = 2 * 1024 * 1024
_FETCH_MAX_WAIT_MS = 100
_IDLE_FETCH_MAX_WAIT_MS = 500
_IDLE_AFTER_S = 3.0

METADATA_MAX_AGE_MS = 10_000
"""New partitions are read within this time; the default is five minutes."""


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    _last_record_s = 0.0

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust fixes 1,500 ms. aiokafka has one fetch under way a broker: a record of a partition that was not in the
        # last fetch (its buffer was not empty yet) waits until that fetch returns, however soon it came.
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS
        consumer._fetch_min_bytes = cast("WorkerApp", transport.app).fetch_min_bytes
        consumer._fetch_max_bytes = _FETCH_MAX_BYTES
        return consumer

    async def _fetch_records(self, consumer: Any, *arguments: Any, **more: Any) -> Any:
        """Fetch, and wait longer for the first record when none has come for some seconds: each empty answer costs
        both sides as much as a full one."""
        found = await super()._fetch_records(consumer, *arguments, **more)
        now = time.monotonic()
        fetcher = consumer._fetcher
        if found:
            self._last_record_s = now
            fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes = _FETCH_MAX_WAIT_MS, consumer._fetch_min_bytes
        elif now - self._last_record_s > _IDLE_AFTER_S:
            fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes = _IDLE_FETCH_MAX_WAIT_MS, 1
        return found

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to where each partition's next record is; one of which nothing is committed, to its beginning.

        Faust drops records that come in the middle of a rebalance and then calls this, to have them again. aiokafka
        leaves a partition without a committed offset where it is, behind what was dropped: the next commit would pass
        over records that nobody has stored.
        """
        committed: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return committed

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        committed: Mapping[TP, int] = await consumer.seek_to_committed()
        if fresh := [tp for tp, offset in committed.items() if not offset]:
            await consumer.seek_to_beginning(*fresh)
        return committed

    def topic_partitions(self, topic: str) -> int | None:
        """Return the number of a topic's partitions, by the metadata that the records are fetched by.

        Faust asks the group's coordinator, which may not know it yet in a worker that has just come back.
        """
        return len(self._ensure_consumer()._client.cluster.partitions_for_topic(topic) or ()) or None


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - Faust's
        """Wait for the first of these, or the end of this service.

        Faust hands each record over in this way, beside the wait for a rebalance, and makes four tasks for it. Mostly
        there is room in the agent's buffer and nothing to wait for: so the first step is made here, and what is left of
        it, if anything, waits as before.
        """
        if len(coros) != 2 or not asyncio.iscoroutine(coros[0]):
            return await super().wait_first(*coros, timeout=timeout)
        hand_over, suspended = coros
        try:
            rest = after_first_step(hand_over)
        except BaseException:
            suspended.close()
            raise
        if rest is not None:
            return await super().wait_first(rest, suspended, timeout=timeout)
        suspended.close()
        await asyncio.sleep(0)  # the agent takes its turn
        return None


class _Transport(driver.Transport):
    Consumer = _Consumer


class WorkerApp(faust.App):
    """A Faust app of ours."""

    before_start: Callable[[], None] = staticmethod(lambda: None)
    """What has to be waited for before the worker joins its group; its metrics can be read meanwhile."""

    stage: str
    fetch_min_bytes = 1
    """The broker waits until it has so many for a fetch, 100 ms at the most; for the first record after some seconds
    without any it does not wait. The agent's buffer should take what is fetched: where it is full, Faust pauses the
    partition."""

    heartbeat: Heartbeat

    lease: Lease
    """Held from the start on: joining the group and reading what is stored may take longer than a lease lasts, and
    Faust begins an app's tasks only after both."""

    watch_access: Callable[[], Awaitable[None]]
    """Ends by an error when Kafka refuses us."""

    async def on_start(self) -> None:
        """Keep the lease, show that the loop turns, and see that Kafka goes on letting us in."""
        self.add_future(self.heartbeat.beat())
        self.lease.begin()
        self.add_future(or_crash(self.stage, self.lease.run()))
        self.add_future(or_crash(self.stage, self.watch_access()))
        await super().on_start()

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    async def on_stop(self) -> None:
        """Say so before anything is cancelled: what kills this process from here on, it was told to end."""
        for tell in _to_tell:
            tell()
        await super().on_stop()


def make_app(settings: Settings, stage: str, group: str, max_records: int, buffer_records: int) -> WorkerApp:
    """Return a Faust app that only consumes: no tables, no web server, no topics of its own.

    Args:
        settings: the worker's.
        stage: its name in logs and metrics.
        group: its consumer group.
        max_records: how many records are taken from the consumer at once.
        buffer_records: how many wait for an agent, which are held beside those that it works on.
    """
    datadir = settings.home / "faust" / group
    datadir.parent.mkdir(parents=True, exist_ok=True)  # Faust makes the folder, but not its parent
    instance = settings.worker_id
    app = WorkerApp(
        group,
        broker=f"kafka://{settings.kafka_servers.replace(',', ';')}",
        broker_credentials=_credentials(settings),
        datadir=datadir,
        store="memory://",
        value_serializer="raw",
        key_serializer="raw",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        # True can wait for ever for a stream to be empty at a rebalance.
        stream_wait_empty=False,
        stream_buffer_maxsize=buffer_records,
        broker_client_id=group,
        broker_max_poll_records=max_records,
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        broker_commit_interval=1.0,
        broker_session_timeout=settings.kafka_session_timeout_ms / 1000,
        broker_heartbeat_interval=settings.kafka_session_timeout_ms / 4000,
        # A named worker that comes back within the session timeout gets its partitions without a rebalance.
        consumer_group_instance_id=f"{group}-{instance}" if instance else None,
        consumer_max_fetch_size=_FETCH_PARTITION_BYTES,
        consumer_auto_offset_reset="earliest",
        logging_config=None,
        loghandlers=[],
    )
    app.stage = stage
    POISON_RECORDS.labels(stage)  # 0 from the start on: the first one is seen to be one more
    app.watch_access = partial(watch_access, settings)
    app.lease = Lease(settings.kafka_session_timeout_ms)
    return app


def _credentials(settings: Settings) -> faust.auth.Credentials | None:
    """Return Faust's own form of :func:`midstream.kafka.connection.connection`."""
    arguments = connection(settings)
    context = arguments.get("ssl_context")
    if settings.kafka_has_users:
        return faust.SASLCredentials(
            username=arguments["sasl_plain_username"],
            password=arguments["sasl_plain_password"],
            mechanism=arguments["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def crash(stage: str, error: BaseException) -> NoReturn:
    """End this process now; nothing that is not acknowledged counts as done."""
    for tell in _to_tell:
        tell()
    FATAL_ERRORS.labels(stage).inc()
    log.critical("worker.crashed", stage=stage, error=repr(error), exc_info=error)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(EXIT_CRASH)


_to_tell: list[Callable[[], None]] = []


def tell_of_crash(tell: Callable[[], None]) -> None:
    """Let ``tell`` be called when an error ends this process, or it stops. It must not fail, also not twice."""
    _to_tell.append(tell)


async def or_crash(
    stage: str, work: Awaitable[None], on_error: Callable[[BaseException], None] = lambda _: None
) -> None:
    """Await ``work``; any error ends the process, after ``on_error``. A process's top: the one place that may catch
    all."""
    try:
        await unless_cancelled(work)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - a worker's top: log, count, exit
        on_error(error)
        crash(stage, error)


def run_worker(
    stage: str,
    make: Callable[[Settings], WorkerApp],
    metrics_port: Callable[[Settings], int],
    *,
    needs_clickhouse: bool = True,
) -> None:
    """Run a worker until it is told to stop.

    Args:
        stage: its name in logs.
        make: builds the app.
        metrics_port: where its metrics are.
        needs_clickhouse: whether it can do nothing without.
    """
    try:
        settings = get_settings()
        kafka = {"kafka": server_addresses(settings)}
        clickhouse = {"clickhouse": clickhouse_addresses(settings)} if needs_clickhouse else {}
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    configure_logs(settings, stage)
    do_without_pandas()
    give_back_what_is_freed()
    uvloop.install()
    look_up_in(settings)
    heartbeat = Heartbeat(settings)
    port = metrics_port(settings)
    try:
        serve_probes(settings, port, heartbeat)
    except OSError as error:
        log.critical("metrics.port_unusable", port=port, error=str(error))
        sys.exit(EXIT_CONFIG)
    wait_until_reachable(kafka)
    if not require_access_at_start(settings):
        sys.exit(EXIT_CONFIG)
    wait_until_reachable(clickhouse)
    try:
        app = make(settings)
        app.heartbeat = heartbeat
        app.before_start()
    except Exception as error:  # noqa: BLE001 - a worker's top: log, count, exit
        crash(stage, error)
    leave_out_what_is_imported()
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True, loglevel=None, debug=False)
    worker.execute_from_commandline()
