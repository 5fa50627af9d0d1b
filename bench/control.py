"""The control: work that no change of ours makes faster or slower, measured beside what is ours.

Machines differ and are shared, so that microseconds of two runs cannot be compared; their ratios to the control of the
same moment can. CPU time, never time by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from bench.mix import batches

_EVENTS = 4_000
_REPEATS = 7
_ROWS = pa.schema(
    [("mid", pa.string()), ("eid", pa.string()), ("hash", pa.uint64()), ("ets", pa.int64()), ("text", pa.string())]
)


def control_bodies(events: int) -> list[bytes]:
    """Return the bodies that controls work on: always the same bytes."""
    return [batch.body for batch in batches(0, events, 20, 1_790_000_000_000)]


def parse(bodies: Sequence[bytes]) -> None:
    """The control of the reports: ``orjson.loads`` of each body, nothing else."""
    for body in bodies:
        orjson.loads(body)


def handle(bodies: Sequence[bytes]) -> None:
    """The control of the gate: of each kind of work that our steps do, about as much of each.

    JSON into objects and back, hashes and tuples in Python, columns in Arrow.
    """
    rows = []
    for body in bodies:
        for event in orjson.loads(body)["events"]:
            text = orjson.dumps(event)
            rows.append((event["mid"], event["eid"], xxhash.xxh3_64_intdigest(text), event["ets"], text.decode()))
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _ROWS, strict=True)]
    batch = pa.RecordBatch.from_arrays(arrays, schema=_ROWS)
    order = pc.sort_indices(batch.column("hash"))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch.take(order))


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds that this process uses for a piece of work, all threads together."""
    began = time.process_time()
    work()
    return time.process_time() - began


def parse_us_per_event() -> float:
    """Return what the control of the reports costs now: the least of several times, microseconds an event."""
    bodies = control_bodies(_EVENTS)
    return min(cpu_s(lambda: parse(bodies)) for _ in range(_REPEATS)) / _EVENTS * 1e6
