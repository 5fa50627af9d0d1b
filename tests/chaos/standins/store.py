"""``store``, going wrong on purpose. ``CHAOS_DOES`` may name:

- ``freeze``: when the trigger is set, stop this process (SIGSTOP) after dedupe and before the insert of events;
- ``no_lease``: insert whatever the lease says;
- ``no_tokens``: every insert under a token of its own, as if there were none;
- ``drop``: leave one event in ``CHAOS_DROP_ONE_IN`` out of the insert, and say nothing of it.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Sequence

import pyarrow as pa

from midstream.clickhouse.client import Body, ClickHouse
from processors.lease import Lease
from processors.store.agent import make_store_app
from processors.store.route import EVENT_TABLES
from processors.worker import run_worker
from tests.chaos.standins import signs

_insert = ClickHouse.insert_stream


def _go_wrong(
    self: ClickHouse,
    table: str,
    columns: Sequence[str],
    body: Body,
    token: str,
    *,
    tries: int,
    before_try: Callable[[int], None],
) -> None:
    wrongs = signs.does()
    if table in EVENT_TABLES:
        if "freeze" in wrongs and signs.take_trigger():
            signs.leave_note()
            signs.signal_self(signal.SIGSTOP)  # what follows happens after SIGCONT
        if "drop" in wrongs:
            body = _without_dropped(body if isinstance(body, bytes) else b"".join(body))
        if "no_tokens" in wrongs:
            token = uuid.uuid4().hex
    if body:
        _insert(self, table, columns, body, token, tries=tries, before_try=before_try)


def _without_dropped(body: bytes) -> bytes:
    """Return the insert's rows but for those to drop; b"" when none is left."""
    with pa.ipc.open_stream(body) as reader:
        schema, rows = reader.schema, reader.read_all()
    columns = (rows.column(name).to_pylist() for name in ("mid_hash", "mid", "batch_id", "event_index"))
    kept = []
    for row, (mid_hash, mid, batch_id, event_index) in enumerate(zip(*columns, strict=True)):
        if signs.is_dropped(mid_hash):
            signs.drop(mid, batch_id, event_index)
        else:
            kept.append(row)
    if len(kept) == rows.num_rows:
        return body
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in rows.take(pa.array(kept, pa.int64())).combine_chunks().to_batches():
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes() if kept else b""


if __name__ == "__main__":
    ClickHouse.insert_stream = _go_wrong  # type: ignore[method-assign]
    if "no_lease" in signs.does():
        Lease.check = lambda self: None  # type: ignore[method-assign]
    run_worker("store", make_store_app, lambda settings: settings.store_metrics_port)
