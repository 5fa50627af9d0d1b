"""What a rate of events takes: ``python -m bench.capacity --events-per-s 1000000 --retention-days 90``; Markdown.

Plain arithmetic from :data:`MEASURED`, the one place of what was measured; docs/scaling.md shows its answer and says
what to make of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from bench.report import Table

_DAY_S = 86_400
_MIB = 1 << 20
_BUSY = 0.5
"""Of a core, a worker's time or a server: so much is used on average, and the rest is for peaks and catching up."""
_STORE_CPU = 0.3
"""Of a ``store`` worker's time, beside :data:`_BUSY` of it in which it waits for inserts."""
_SERVER_CORES = 16
_SERVER_DISK_BYTES = 10e12
_BROKER_BYTES_PER_S = 100e6
"""Written by one broker, the copies for others included."""
_LEAST_SEAL_S = 0.25
_LEAST_PARTITIONS = 2
_ROUND_BYTES = 24 * _MIB
"""Of records that a ``validate`` worker takes up at once (:mod:`processors.validate.agent`)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on one core of 2.8 GHz, and by which command. Events are those of :mod:`bench.mix`."""

    event_bytes: float = 754
    # python -m bench --only cpu: medians of batches of 20 and 200, plain; a line through both.
    collector_us_batch: float = 433
    collector_us_event: float = 4.8
    validate_us_batch: float = 400
    validate_us_event: float = 40
    store_us_event: float = 25
    broker_us_batch: float = 267
    broker_us_event: float = 9.7
    # python -m bench.inserts; and what the pipeline's engine takes an event (part cpu) beyond its blocks: with merges.
    engine_ms_block: float = 23
    engine_us_event: float = 33
    stored_bytes_day: float = 295
    stored_bytes_later: float = 176
    # python -m bench.scaling --only workers: the topics' segments on the disk.
    raw_bytes: float = 100
    valid_bytes: float = 430
    # 100 million stored mids (docs/performance.md): what a worker holds of each, and until it is ready again.
    mid_bytes: float = 2.4
    mids_read_per_s: float = 3.6e6


MEASURED = Measured()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be carried, and how."""

    events_per_s: float
    event_bytes: float = MEASURED.event_bytes
    batch_events: float = 20
    retention_days: float = 90
    kafka_days: float = 7
    replication: int = 3
    insert_ms: float = 50
    """Until ClickHouse has answered an insert of a block: network, replicas and the insert itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What that takes. Cores, disk and traffic of all pipelines together, where it does not say otherwise."""

    events_a_day: float
    pipelines: int
    seal_s: float
    """What ``MIDSTREAM_SEAL_INTERVAL_MS`` has to be at least, in seconds: it bounds the number of blocks."""
    partitions: int
    """Of ``telemetry.valid``, of one pipeline."""
    validate_workers: int
    """Of one pipeline; so are ``store_workers``, one a partition."""
    block_rows: float
    blocks_per_s: float
    collector_cores: float
    validate_cores: float
    store_cores: float
    engine_cores: float
    broker_cores: float
    received_bytes_per_s: float
    kafka_written_bytes_per_s: float
    """Copies included."""
    kafka_read_bytes_per_s: float
    """By workers: ``telemetry.raw`` twice (``validate``, receipts) and ``telemetry.valid`` once."""
    kafka_disk_bytes: float
    brokers: int
    stored_bytes: float
    """Of the whole retention, one copy."""
    shards: int
    """Each with ``replication`` servers."""
    dedupe_bytes: float
    dedupe_bytes_worker: float
    reload_s: float
    """Until a worker that is given its partition has read the stored mids of it."""


def plan(asked: Asked, measured: Measured = MEASURED) -> Plan:
    """Work out what a load takes.

    A ``validate`` worker seals a block for each partition every ``seal_s``, and a ``store`` worker inserts the blocks
    of its partition one after the other. So a partition gets ``validate_workers / seal_s`` blocks a second, however
    many partitions there are, and each of them takes ``insert_ms``. Where no ``seal_s`` that a worker's round allows is
    long enough for that, the load is split among pipelines that know nothing of one another.
    """
    rate, larger = asked.events_per_s, asked.event_bytes / measured.event_bytes
    batches_per_s = rate / asked.batch_events
    insert_s = asked.insert_ms / 1000

    def cores(us_batch: float, us_event: float) -> float:
        return (batches_per_s * us_batch + rate * us_event * larger) / 1e6

    validate_cores = cores(measured.validate_us_batch, measured.validate_us_event)
    validate_workers = ceil(validate_cores / _BUSY)
    longest_seal_s = _ROUND_BYTES / (rate / validate_workers * asked.event_bytes)
    most_validate = max(floor(_BUSY * longest_seal_s / insert_s), 1)
    pipelines = ceil(validate_workers / most_validate)
    validate_workers = ceil(validate_workers / pipelines)
    seal_s = max(_LEAST_SEAL_S, validate_workers * insert_s / _BUSY)
    store_cores = cores(0, measured.store_us_event)
    partitions = _power_of_two(max(ceil(store_cores / _STORE_CPU / pipelines), _LEAST_PARTITIONS))
    blocks_per_s = pipelines * validate_workers * partitions / seal_s
    engine_cores = blocks_per_s * measured.engine_ms_block / 1e3 + cores(0, measured.engine_us_event)
    raw, valid = (rate * larger * one for one in (measured.raw_bytes, measured.valid_bytes))
    kafka_disk = (raw + valid) * asked.replication * asked.kafka_days * _DAY_S
    kafka_written = (raw + valid) * asked.replication
    stored = (
        rate
        * larger
        * _DAY_S
        * (measured.stored_bytes_day + measured.stored_bytes_later * max(asked.retention_days - 1, 0))
    )
    mids = rate * _DAY_S * asked.retention_days
    return Plan(
        events_a_day=rate * _DAY_S,
        pipelines=pipelines,
        seal_s=seal_s,
        partitions=partitions,
        validate_workers=validate_workers,
        block_rows=rate / blocks_per_s,
        blocks_per_s=blocks_per_s,
        collector_cores=cores(measured.collector_us_batch, measured.collector_us_event),
        validate_cores=validate_cores,
        store_cores=store_cores,
        engine_cores=engine_cores,
        broker_cores=cores(measured.broker_us_batch, measured.broker_us_event),
        received_bytes_per_s=rate * asked.event_bytes,
        kafka_written_bytes_per_s=kafka_written,
        kafka_read_bytes_per_s=2 * raw + valid,
        kafka_disk_bytes=kafka_disk,
        brokers=max(
            asked.replication, ceil(kafka_disk / _BUSY / _SERVER_DISK_BYTES), ceil(kafka_written / _BROKER_BYTES_PER_S)
        ),
        stored_bytes=stored,
        shards=_power_of_two(
            max(ceil(engine_cores / _BUSY / _SERVER_CORES), ceil(stored / _BUSY / _SERVER_DISK_BYTES))
        ),
        dedupe_bytes=mids * measured.mid_bytes,
        dedupe_bytes_worker=mids * measured.mid_bytes / partitions / pipelines,
        reload_s=mids / partitions / pipelines / measured.mids_read_per_s,
    )


def _power_of_two(least: int) -> int:
    """Partitions and shards: so that the one number divides the other, and a block goes to one shard."""
    return 1 << max(least - 1, 0).bit_length()


def table(asked: Sequence[Asked]) -> Table:
    """Return a column for each load."""
    plans = [plan(one) for one in asked]

    def row(name: str, cell: Callable[[Plan], str]) -> list[str]:
        return [name, *map(cell, plans)]

    rows = [
        row("events a day", lambda p: _short(p.events_a_day)),
        row("received, MB a second", lambda p: _short(p.received_bytes_per_s / 1e6)),
        row("collectors: cores used", lambda p: _short(p.collector_cores)),
        row("`validate`: cores used", lambda p: _short(p.validate_cores)),
        row("`store`: cores used", lambda p: _short(p.store_cores)),
        row("ClickHouse: cores used to insert and merge, of each copy", lambda p: _short(p.engine_cores)),
        row("Kafka: cores used, copies not included", lambda p: _short(p.broker_cores)),
        row("pipelines", lambda p: f"{p.pipelines}"),
        row("of each: `validate` workers", lambda p: f"{p.validate_workers}"),
        row("of each: partitions, and `store` workers", lambda p: f"{p.partitions}"),
        row("`MIDSTREAM_SEAL_INTERVAL_MS`", lambda p: f"{p.seal_s * 1000:,.0f}"),
        row("events a block; blocks a second in all", lambda p: f"{_short(p.block_rows)}; {_short(p.blocks_per_s)}"),
        row("Kafka: written, copies included, MB a second", lambda p: _short(p.kafka_written_bytes_per_s / 1e6)),
        row("Kafka: read by workers, MB a second", lambda p: _short(p.kafka_read_bytes_per_s / 1e6)),
        row("Kafka: disk, copies included, TB; brokers", lambda p: f"{_short(p.kafka_disk_bytes / 1e12)}; {p.brokers}"),
        row("ClickHouse: disk of one copy, TB", lambda p: _short(p.stored_bytes / 1e12)),
        row("ClickHouse: shards, each with its replicas", lambda p: f"{p.shards}"),
        row("dedupe: memory of all `store` workers, GB", lambda p: _short(p.dedupe_bytes / 1e9)),
        row("dedupe: memory of one worker, GB", lambda p: _short(p.dedupe_bytes_worker / 1e9)),
        row("dedupe: until a worker has read its mids, s", lambda p: _short(p.reload_s)),
    ]
    columns = ["events a second", *(f"{one.events_per_s:,.0f}" for one in asked)]
    return Table("What it takes", columns, rows, _note(asked[0]))


def _note(asked: Asked) -> str:
    return (
        f"Events of {asked.event_bytes:g} bytes in batches of {asked.batch_events:g}, an insert answered within "
        f"{asked.insert_ms:g} ms, {asked.retention_days:g} days in ClickHouse, {asked.kafka_days:g} in Kafka, "
        f"{asked.replication} copies of everything. Cores are of 2.8 GHz, as used: have twice as many. Servers are of "
        f"{_SERVER_CORES} cores and {_SERVER_DISK_BYTES / 1e12:g} TB, half of them used; a broker writes "
        f"{_BROKER_BYTES_PER_S / 1e6:g} MB a second."
    )


def _short(value: float) -> str:
    """Return a number with two digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def main() -> int:
    """Work out and print."""
    default = Asked(0)
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--events-per-s", type=float, nargs="+", default=[1e3, 1e4, 1e5, 1e6])
    parser.add_argument("--event-bytes", type=float, default=default.event_bytes)
    parser.add_argument("--batch-events", type=float, default=default.batch_events, help="events of a batch")
    parser.add_argument("--retention-days", type=float, default=default.retention_days, help="of events in ClickHouse")
    parser.add_argument("--kafka-days", type=float, default=default.kafka_days, help="of retention in Kafka")
    parser.add_argument("--replication", type=int, default=default.replication, help="copies, of Kafka and ClickHouse")
    parser.add_argument("--insert-ms", type=float, default=default.insert_ms, help="until ClickHouse answers an insert")
    arguments = vars(parser.parse_args())
    rates = arguments.pop("events_per_s")
    if min(*rates, *arguments.values()) <= 0:
        parser.error("every number has to be above 0")
    print(table([Asked(rate, **arguments) for rate in rates]).markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
