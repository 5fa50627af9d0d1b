"""The plain pipeline with quixstreams, record by record: its state keeps the mids, its sink batches the inserts."""

from __future__ import annotations

from typing import Any

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from bench.peers.common import (
    BATCH_ROWS,
    BATCH_S,
    EVENTS_TABLE,
    REJECTS_TABLE,
    Checker,
    Judged,
    Warehouse,
    judging,
    read_job,
    reject_row,
    say_ready,
    split,
)


class ClickHouseSink(BatchingSink):  # type: ignore[misc]  # the type checker does not see the peers' environment
    """Inserts what has gathered, with each commit."""

    def __init__(self, warehouse: Warehouse, table: str) -> None:
        super().__init__()
        self._warehouse, self._table = warehouse, table

    def write(self, batch: SinkBatch) -> None:
        """Insert it, a few thousand rows at once."""
        for chunk in batch.iter_chunks(BATCH_ROWS):
            self._warehouse.insert(self._table, (item.value for item in chunk))


def _is_new(judged: Judged, state: Any) -> bool:
    mid = judged[0]["mid"]
    if state.exists(mid):
        return False
    state.set(mid, 1)
    return True


def main() -> None:
    """Consume until a signal."""
    job = read_job()
    checker, warehouse = Checker(), Warehouse(job.clickhouse_port)
    app = Application(
        broker_address=job.kafka,
        consumer_group="peer-quix",
        auto_offset_reset="earliest",
        commit_interval=BATCH_S,
        state_dir=job.state,
        loglevel="WARNING",
    )
    frame = app.dataframe(app.topic(job.topic, key_deserializer="bytes", value_deserializer="bytes"))
    judged = frame.apply(split, expand=True).apply(judging(checker))
    rejects = judged.filter(lambda pair: bool(pair[1]))
    rejects.apply(lambda pair: reject_row(*pair)).sink(ClickHouseSink(warehouse, REJECTS_TABLE))
    valid = judged.filter(lambda pair: not pair[1]).filter(_is_new, stateful=True)
    valid.apply(lambda pair: warehouse.row(pair[0])).sink(ClickHouseSink(warehouse, EVENTS_TABLE))
    say_ready()
    app.run()


if __name__ == "__main__":
    main()
