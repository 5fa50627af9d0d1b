"""The plain pipeline with bytewax: stateful steps keep the mids, in sets by their hash, in memory alone.

Recovery is off, which is the cheaper way. bytewax is maintained by its community since 2025 (bytewax#571); pathway,
which a company maintains, brings 87 packages, and a Kafka Streams program a build of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from datetime import timedelta

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow, Stream
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main
from confluent_kafka import OFFSET_BEGINNING

from bench.peers.common import (
    BATCH_ROWS,
    BATCH_S,
    EVENTS_TABLE,
    REJECTS_TABLE,
    Checker,
    Event,
    Job,
    Row,
    Warehouse,
    judging,
    read_job,
    reject_row,
    say_ready,
    split,
)

_SETS = 256


class _Partition(StatelessSinkPartition):  # type: ignore[misc]  # the type checker does not see the peers' environment
    def __init__(self, warehouse: Warehouse, table: str) -> None:
        self._warehouse, self._table = warehouse, table

    def write_batch(self, items: list[tuple[str, list[Row]]]) -> None:
        """Insert what has been collected."""
        for _, rows in items:
            self._warehouse.insert(self._table, rows)


class _Sink(DynamicSink):  # type: ignore[misc]  # as above
    def __init__(self, warehouse: Warehouse, table: str) -> None:
        self._warehouse, self._table = warehouse, table

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Partition:
        """Return the sink of one worker."""
        return _Partition(self._warehouse, self._table)


def _values(message: KafkaSourceMessage) -> list[Event]:
    return split(message.value)


def _keyed(event: Event) -> tuple[str, Event]:
    return str(zlib.crc32(event["mid"].encode()) % _SETS), event


def _new(seen: set[str] | None, event: Event) -> tuple[set[str], Iterable[Event]]:
    seen = set() if seen is None else seen
    if event["mid"] in seen:
        return seen, []
    seen.add(event["mid"])
    return seen, [event]


def make_flow(job: Job) -> Dataflow:
    """Return the flow."""
    checker, warehouse = Checker(), Warehouse(job.clickhouse_port)
    flow = Dataflow("peer")
    source = KafkaSource([job.kafka], [job.topic], starting_offset=OFFSET_BEGINNING)
    judged = op.map("judge", op.flat_map("split", op.input("in", flow, source), _values), judging(checker))
    ways = op.branch("valid", judged, lambda pair: not pair[1])
    keyed = op.map("key", ways.trues, lambda pair: _keyed(pair[0]))
    new = op.stateful_flat_map("dedupe", keyed, _new)
    _insert("events", op.map("row", new, lambda pair: warehouse.row(pair[1])), warehouse, EVENTS_TABLE)
    _insert("rejects", op.map("reject", ways.falses, lambda pair: reject_row(*pair)), warehouse, REJECTS_TABLE)
    return flow


def _insert(name: str, rows: Stream[Row], warehouse: Warehouse, table: str) -> None:
    together = op.key_on(f"{name} together", rows, lambda _: "all")
    batches = op.collect(f"{name} batch", together, timedelta(seconds=BATCH_S), BATCH_ROWS)
    op.output(f"{name} out", batches, _Sink(warehouse, table))


def main() -> None:
    """Consume until a signal."""
    flow = make_flow(read_job())
    say_ready()
    cli_main(flow)


if __name__ == "__main__":
    main()
