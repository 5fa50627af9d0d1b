"""Part ``limits``: what the same events cost where only the physical work is done, beside the pipeline itself."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Callable, Sequence

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.blocks import open_judge, raw_records, seal, store_records
from bench.control import cpu_s, parse_us_per_event
from bench.load import Load, Outcome, Runner
from bench.mix import batches
from bench.options import Options
from bench.pipeline import BenchPipeline
from bench.processes import Watch
from bench.report import Part, Table, spread, times
from bench.steps import NoClickHouse
from midstream.clickhouse.client import Body, ClickHouse, open_client
from midstream.settings import Settings
from midstream.topics import MAX_MESSAGE_BYTES
from processors.lease import Lease
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.stored import StoredMids
from processors.store.dimension_cache import DimensionCache
from processors.store.storer import Storer

_BATCH_EVENTS = 20
_PARTITIONS = 2
_KAFKA_TIMEOUT_S = 120.0
_REPEATS = 5

Insert = tuple[str, Sequence[str], Body]
"""Table, columns, Arrow IPC stream."""
Costs = dict[str, list[float]]
"""Microseconds an event of each run, by what they are of."""


class _Recorder(NoClickHouse):
    """Keeps what would be inserted."""

    def __init__(self) -> None:
        super().__init__()
        self.inserts: list[Insert] = []

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
        """Keep it."""
        self.inserts.append((table, columns, body))


def run(options: Options) -> Part:
    """Measure each limit and the pipeline in turns, on the same engine and broker."""
    bodies = [batch.body for batch in batches(7, options.events, _BATCH_EVENTS, time.time_ns() // 1_000_000)]
    costs: Costs = {}
    pipeline_runs: list[Outcome] = []
    with BenchPipeline(options.folder) as pipeline:
        pipeline.push_dimensions()
        runner = Runner(pipeline)
        runner.run(Load(options.warm_up_events))
        clickhouse = open_client(pipeline.settings)
        try:
            for number in range(options.runs):
                options.say(f"limits: run {number + 1} of {options.runs}")
                _note(costs, "control", parse_us_per_event())
                _parse(costs, bodies, options.events)
                _insert(costs, pipeline, clickhouse, seed=100 + number, events=options.events)
                asyncio.run(_kafka(costs, pipeline, bodies, options.events))
                pipeline_runs.append(runner.run(Load(options.events, _BATCH_EVENTS)))
        finally:
            clickhouse.close()
    data = {"limits": costs, "pipeline": [one.for_json() for one in pipeline_runs]}
    return Part([_table(costs, pipeline_runs)], data, [f"limits: {t}" for one in pipeline_runs for t in one.troubles])


def _note(costs: Costs, name: str, us: float) -> None:
    costs.setdefault(name, []).append(us)


def _parse(costs: Costs, bodies: Sequence[bytes], events: int) -> None:
    for name, read in (("orjson.loads", orjson.loads), ("msgspec.json.decode", msgspec.json.decode)):

        def read_all(read: Callable[[bytes], object] = read) -> None:
            for body in bodies:
                read(body)

        _note(costs, name, min(cpu_s(read_all) for _ in range(_REPEATS)) / events * 1e6)


def finished_inserts(settings: Settings, seed: int, events: int) -> list[Insert]:
    """Return what ``store`` inserts of a mix, made by its own code from blocks that ``validate`` seals."""
    blocks = store_records(seal(settings, open_judge(settings), raw_records(seed, events, _BATCH_EVENTS), _PARTITIONS))
    recorder = _Recorder()
    dimensions = DimensionCache(
        recorder,
        settings.dimension_cache_entries,
        settings.dimension_cache_bytes,
        settings.dimension_negative_ms,
    )
    dimensions.follow(True)
    cache = DedupeCache(StoredMids(recorder), settings.dedupe_memory_bytes, settings.dedupe_recent)
    cache.load(range(_PARTITIONS), _PARTITIONS)
    Storer(recorder, dimensions, Lease(24 * 3_600_000), settings.insert_tries).store_valid(blocks, cache)
    return recorder.inserts


def _insert(costs: Costs, pipeline: BenchPipeline, clickhouse: ClickHouse, seed: int, events: int) -> None:
    inserts = finished_inserts(pipeline.settings, seed, events)
    with Watch(pipeline.home) as watch:

        def insert_all() -> None:
            for table, columns, body in inserts:
                token = uuid.uuid4().hex
                clickhouse.insert_stream(table, columns, body, token, tries=1, before_try=lambda _: None)

        client_s = cpu_s(insert_all)
    _note(costs, "insert of finished columns, engine", watch.usage["engine"].cpu_s / events * 1e6)
    _note(costs, "insert of finished columns, client", client_s / events * 1e6)


async def _kafka(costs: Costs, pipeline: BenchPipeline, bodies: Sequence[bytes], events: int) -> None:
    """Produce the bodies and consume them again, as fast as the client can."""
    servers, topic = pipeline.settings.kafka_servers, f"bench-{uuid.uuid4().hex}"
    await make_topic(servers, topic)
    with Watch(pipeline.home) as watch:
        began = time.process_time()
        await produce(servers, topic, bodies)
        produced_s = time.process_time() - began
        began = time.process_time()
        await _consume(servers, topic, len(bodies))
        consumed_s = time.process_time() - began
    _note(costs, "Kafka, the same bytes once: broker", watch.usage["broker"].cpu_s / events * 1e6)
    _note(costs, "Kafka, the same bytes once: producer", produced_s / events * 1e6)
    _note(costs, "Kafka, the same bytes once: consumer", consumed_s / events * 1e6)


async def make_topic(servers: str, topic: str) -> None:
    """Make a topic of one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        config = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=config)])
    finally:
        await admin.close()


async def produce(servers: str, topic: str, bodies: Sequence[bytes]) -> None:
    """Make every body durable, with the settings that the collector's producer has."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=512 * 1024,
        max_request_size=MAX_MESSAGE_BYTES,
    )
    await producer.start()
    try:
        async with asyncio.timeout(_KAFKA_TIMEOUT_S):
            sent = [await producer.send(topic, body, key=b"bench", partition=0) for body in bodies]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def _consume(servers: str, topic: str, records: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(_KAFKA_TIMEOUT_S):
            while records > 0:
                taken = await consumer.getmany(timeout_ms=1_000, max_records=5_000)
                records -= sum(map(len, taken.values()))
    finally:
        await consumer.stop()


_BESIDE = {
    "orjson.loads": "validate",
    "msgspec.json.decode": "validate",
    "insert of finished columns, engine": "engine",
    "insert of finished columns, client": "store",
    "Kafka, the same bytes once: broker": "broker",
    "Kafka, the same bytes once: producer": "collector and api",
    "Kafka, the same bytes once: consumer": "validate",
}
"""The process of the pipeline in which this work is done, among other work."""


def _table(costs: Costs, pipeline_runs: Sequence[Outcome]) -> Table:
    rows = []
    for name, kind in _BESIDE.items():
        ours = [one.cpu_us[kind] for one in pipeline_runs]
        limit = statistics.median(costs[name])
        rows.append([name, spread(costs[name], 2), kind, spread(ours), times(statistics.median(ours), limit)])
    return Table(
        "The physical limits, CPU in microseconds an event, batches of 20",
        ["only this", "us", "in the pipeline", "us", "times the limit"],
        rows,
        f"Minimum / median / maximum of the runs; control {spread(costs['control'], 2)}. The process of the pipeline "
        "does the work on its left and all of its own.",
    )
