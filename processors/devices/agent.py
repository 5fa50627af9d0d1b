"""The Faust agent of ``devices``: takes records, has them stored, acknowledges in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from midstream import topics
from midstream.clickhouse.client import open_client
from midstream.metrics import LAG_RECORDS
from midstream.settings import Settings
from processors.attempts import Attempts, end_if_stuck
from processors.devices.storer import DeviceStorer
from processors.remade import Look, TopicGuard
from processors.store.storer import StoreRecord
from processors.store.watched import WatchedClickHouse
from processors.take import for_each, take
from processors.worker import WorkerApp, make_app, or_crash, tell_of_crash

_MAX_RECORDS = 2_000
_BUFFER_RECORDS = 500
_MAX_TAKEN_BYTES = 16 * 1024 * 1024
_FETCH_MIN_BYTES = 256 * 1024  # records are small: what each of them costs is what counts
_TAKE_S = 0.5
"""How long a report waits for others: an insert has a fixed cost of milliseconds in ClickHouse."""


def make_devices_app(settings: Settings) -> WorkerApp:
    """Return the Faust app of ``devices``.

    Raises:
        AttemptsError: the home cannot be written to.
        ClickHouseError: ClickHouse is away.
    """
    app = make_app(settings, "devices", topics.GROUP_DEVICES, _MAX_RECORDS, _BUFFER_RECORDS)
    app.fetch_min_bytes = _FETCH_MIN_BYTES
    attempts = Attempts.open(settings, topics.GROUP_DEVICES)
    tell_of_crash(attempts.close)
    clickhouse = WatchedClickHouse(open_client(settings), attempts)
    storer = DeviceStorer(clickhouse, app.lease, settings.insert_tries, attempts=attempts)
    guard = TopicGuard(settings, {topics.GROUP_DEVICES: (topics.DEVICE.name,)}, tell=_publish_lag)
    app.before_start = guard.prepare
    reports = app.topic(topics.DEVICE.name, key_serializer="raw", value_serializer="raw")

    async def store(events: list[Any]) -> None:
        # Faust keeps a few records that were read before the last rebalance. They are left alone: whoever has their
        # partitions now reads them again from the committed offset.
        own = [event for event in events if event.message.generation_id == app.consumer_generation_id]
        await asyncio.to_thread(storer.store, _records(own))
        for event in own:
            event.ack()

    @app.agent(reports, concurrency=1)
    async def devices(stream: Any) -> None:
        taken = take(stream, topics.DEVICE.name, records=_MAX_RECORDS, max_bytes=_MAX_TAKEN_BYTES, within_s=_TAKE_S)
        await or_crash("devices", for_each(taken, store), storer.tries.failed)

    @app.task  # type: ignore[untyped-decorator]
    async def end_when_stuck() -> None:
        await or_crash("devices", end_if_stuck(attempts, settings.record_timeout_ms / 1000))

    @app.task  # type: ignore[untyped-decorator]
    async def guard_topics() -> None:
        await or_crash("devices", guard.run())

    return app


def _publish_lag(look: Look) -> None:
    lag = sum(max(end - look.committed.get(tp, 0), 0) for tp, end in look.ends.items())
    LAG_RECORDS.labels(topics.GROUP_DEVICES, topics.DEVICE.name).set(lag)


def _records(events: Sequence[Any]) -> list[StoreRecord]:
    return [
        StoreRecord(m.topic, m.partition, m.offset, int((m.timestamp or 0) * 1000), m.value or b"")
        for m in (event.message for event in events)
    ]
