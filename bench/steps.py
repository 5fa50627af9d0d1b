"""The steps whose CPU time the gate watches, each in process, without Kafka and ClickHouse."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.blocks import open_judge, raw_records, seal, store_records
from bench.mix import batches
from ingest.collector import Collector
from ingest.publish import MakeReceipt, SendAlone
from midstream.clickhouse.client import Body, ClickHouse
from midstream.receipt import encode_receipt
from midstream.registry.credentials import Credentials
from midstream.registry.migrate import migrate
from midstream.settings import Settings
from processors.lease import Lease
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.stored import StoredMids
from processors.store.dimension_cache import DimensionCache
from processors.store.storer import Storer

_EVENTS = 1_000
_STORE_EVENTS = 4_000  # so much that handing blocks to threads, which a busy machine makes dear, counts for little
_PARTITIONS = 2
_NOW_MS = 1_790_000_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``run`` takes ``events`` events through it."""

    name: str
    events: int
    run: Callable[[], None]


@contextmanager
def open_steps() -> Iterator[list[Step]]:
    """Yield all steps, ready to run as often as wanted."""
    with tempfile.TemporaryDirectory(prefix="midstream-gate-") as home:
        settings = Settings.model_validate({"home": home, "registry": "", "kafka": "", "clickhouse": ""})
        with _collecting(settings) as collect:
            yield [_validate(settings, 20), _validate(settings, 200), _store(settings), *collect]


def _validate(settings: Settings, batch_events: int) -> Step:
    judge = open_judge(settings)
    records = raw_records(1, _EVENTS, batch_events)

    def run() -> None:
        for _ in seal(settings, judge, records, _PARTITIONS):
            pass

    return Step(f"validate, batches of {batch_events}", _EVENTS, run)


class NoClickHouse(ClickHouse):
    """Takes every insert, holds nothing but dimensions, and costs next to nothing."""

    def __init__(self) -> None:
        self.is_cluster = False

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
        """Return a dimension for each id that is asked for."""
        given = parameters or {}
        types = [(value, given[f"ids_{name[5:]}"]) for name, value in given.items() if name.startswith("type_")]
        attributes = '{"state":"Karnataka","district":"Mysuru"}'
        return [(type_, id_, attributes, 1, False, len(attributes)) for type_, ids in types for id_ in ids]

    def row_binary(self, sql: str, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Yield nothing: no mid is stored."""
        return iter(())

    def insert_stream(
        self,
        table: str,
        columns: Sequence[str],
        body: Body,
        token: str,
        *,
        tries: int,
        before_try: Callable[[int], None],
    ) -> None:
        """Take it."""
        before_try(0)

    def dropped_inserts(self) -> tuple[int, int] | None:
        """Return that none was dropped."""
        return 0, 0


def _store(settings: Settings) -> Step:
    records = store_records(seal(settings, open_judge(settings), raw_records(2, _STORE_EVENTS, 20), _PARTITIONS))
    clickhouse = NoClickHouse()
    dimensions = DimensionCache(
        clickhouse, settings.dimension_cache_entries, settings.dimension_cache_bytes, settings.dimension_negative_ms
    )
    dimensions.follow(True)
    storer = Storer(clickhouse, dimensions, Lease(24 * 3_600_000), settings.insert_tries)

    def run() -> None:
        cache = DedupeCache(StoredMids(clickhouse), settings.dedupe_memory_bytes, settings.dedupe_recent)
        cache.load(range(_PARTITIONS), _PARTITIONS)
        storer.store_valid(records, cache)

    return Step("store, without ClickHouse", _STORE_EVENTS, run)


class _MemoryPublisher:
    """Durable at once, and kept nowhere: what Kafka's client costs is not the collector's."""

    ready = True

    async def start(self) -> None:
        """Nothing to begin."""

    async def stop(self, timeout_s: float) -> None:
        """Nothing to finish."""

    async def publish(self, body: bytes, key: bytes, make_receipt: MakeReceipt, release: Callable[[], None]) -> None:
        encode_receipt(make_receipt("gate", 0))
        release()

    async def send(self, topic: str, key: bytes, value: bytes, release: Callable[[], None]) -> None:
        release()

    async def hand_over(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[object]:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[SendAlone]:
        async def send(topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
            raise AssertionError("the gate spools nothing")

        yield send


@contextmanager
def _collecting(settings: Settings) -> Iterator[list[Step]]:
    """Yield the steps of a collector that has been started."""
    Path(settings.home).mkdir(exist_ok=True)
    migrate(settings)
    credentials = Credentials(settings)
    try:
        token = credentials.create("gate").token
    finally:
        credentials.close()
    loop = asyncio.new_event_loop()
    collector = Collector(settings, _MemoryPublisher())
    loop.run_until_complete(collector.startup())
    try:
        yield [_collect(loop, collector, token, batch_events) for batch_events in (20, 200)]
    finally:
        loop.run_until_complete(collector.shutdown())
        loop.close()


def _collect(loop: asyncio.AbstractEventLoop, collector: Collector, token: str, batch_events: int) -> Step:
    bodies = [batch.body for batch in batches(3, _EVENTS, batch_events, _NOW_MS)]
    statuses: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def post(body: bytes) -> None:
        headers = [
            (b"authorization", b"Bearer " + token.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-device-id", b"gate"),
        ]
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(messages)

        scope = {"type": "http", "method": "POST", "path": "/v1/telemetry", "headers": headers, "query_string": b""}
        await collector(scope, receive, send)

    async def post_all() -> None:
        for body in bodies:
            await post(body)

    def run() -> None:
        statuses.clear()
        loop.run_until_complete(post_all())
        if statuses != [200] * len(bodies):
            raise RuntimeError(f"the collector answers {set(statuses)}")

    return Step(f"collector, requests of {batch_events}", _EVENTS, run)
