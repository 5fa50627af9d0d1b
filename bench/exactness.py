"""What exactness costs: ``python -m bench.exactness [--events N] [--stored N] [--runs N]``; prints JSON.

The same blocks of the measured mix go through ``store``'s own code into an engine of their own, in turns with dedupe
and with dedupe off (every row taken for new, nothing remembered). Besides: memory a mid, and the time that a worker
needs from its start to its first insert with so many events stored. No Kafka; CPU times by the operating system's
accounting.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from bench.blocks import open_judge, raw_records, seal, store_records
from bench.engine import Engine, temporary_engine
from bench.stored import fill
from midstream.settings import Settings
from processors.lease import Lease
from processors.store import storer as storer_module
from processors.store.dedupe.cache import DedupeCache
from processors.store.dedupe.decide import Decision
from processors.store.dedupe.stored import StoredMids
from processors.store.dimension_cache import DimensionCache
from processors.store.storer import Storer, StoreRecord

_BATCH_EVENTS = 20
_PARTITIONS = 2

_DAY_S = 24 * 3600


def make_blocks(settings: Settings, seed: int, events: int) -> list[StoreRecord]:
    """Return blocks as ``validate`` seals them when it has much to do; without the invalid events."""
    records = raw_records(seed, events, _BATCH_EVENTS)
    return store_records(seal(settings, open_judge(settings), records, _PARTITIONS))


class _Nothing(DedupeCache):
    """A cache that remembers nothing."""

    def add(self, hashes: Any, rows: pa.Table) -> None:
        """Forget it."""


def _all_new(block: pa.RecordBatch, *_: Any) -> Decision:
    return Decision(np.arange(block.num_rows, dtype=np.int64), [], 0)


def _storer(engine: Engine) -> Storer:
    settings = engine.settings
    dimensions = DimensionCache(
        engine.clickhouse,
        settings.dimension_cache_entries,
        settings.dimension_cache_bytes,
        settings.dimension_negative_ms,
    )
    dimensions.follow(True)
    return Storer(engine.clickhouse, dimensions, Lease(3_600_000), settings.insert_tries)


def _cache(engine: Engine, kind: type[DedupeCache] = DedupeCache) -> DedupeCache:
    settings = engine.settings
    return kind(StoredMids(engine.clickhouse), settings.dedupe_memory_bytes, settings.dedupe_recent)


def store(engine: Engine, blocks: Sequence[StoreRecord], events: int, *, dedupe: bool) -> dict[str, float]:
    """Store blocks; return CPU microseconds an event, of this process and of the engine, and events a second."""
    cache = _cache(engine, DedupeCache if dedupe else _Nothing)
    if dedupe:
        cache.load(range(_PARTITIONS), _PARTITIONS)
    storer = _storer(engine)
    with nullcontext() if dedupe else patch.object(storer_module, "decide", _all_new):
        engine_began, own_began, began = engine.cpu_s(), time.process_time(), time.monotonic()
        for block in blocks:
            storer.store_valid([block], cache)
        total_s = time.monotonic() - began
        own_s, engine_s = time.process_time() - own_began, engine.cpu_s() - engine_began
    return {
        "store_us": own_s / events * 1e6,
        "engine_us": engine_s / events * 1e6,
        "events_per_s": events / total_s,
        "bytes_a_mid": cache.held_bytes / max(cache.held_mids, 1),
    }


def first_insert(engine: Engine, block: StoreRecord) -> dict[str, float]:
    """Return what a worker does from its start to its first insert, and the memory it then holds."""
    began = time.monotonic()
    cache = _cache(engine)
    cache.load(range(_PARTITIONS), _PARTITIONS)
    loaded_s = time.monotonic() - began
    _storer(engine).store_valid([block], cache)
    return {
        "load_s": round(loaded_s, 2),
        "first_insert_s": round(time.monotonic() - began, 2),
        "mids_held": cache.held_mids,
    }


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "min": round(min(run[name] for run in runs), 1),
            "median": round(statistics.median(run[name] for run in runs), 1),
            "max": round(max(run[name] for run in runs), 1),
        }
        for name in runs[0]
    }


def measure(engine: Engine, events: int, stored: int, runs: int) -> dict[str, object]:
    """Measure; the first run of each kind is not counted."""
    now_s = int(time.time())
    if stored:
        fill(engine.clickhouse, stored, now_s - 30 * _DAY_S, 30 * _DAY_S, _say)
    result: dict[str, object] = {"events": events, "stored_before": stored}
    result["restart"] = first_insert(engine, make_blocks(engine.settings, 999, 2_000)[0])
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for run in range(runs + 1):
        for dedupe in (True, False):
            blocks = make_blocks(engine.settings, 2 * run + dedupe, events)
            one = store(engine, blocks, events, dedupe=dedupe)
            if run:
                found[dedupe].append(one)
    result["with_dedupe"], result["dedupe_off"] = _summary(found[True]), _summary(found[False])
    cost = [statistics.median(run["store_us"] + run["engine_us"] for run in found[dedupe]) for dedupe in (True, False)]
    speed = [statistics.median(run["events_per_s"] for run in found[dedupe]) for dedupe in (True, False)]
    result["cpu_more_percent"] = round((cost[0] / cost[1] - 1) * 100, 1)
    result["throughput_less_percent"] = round((1 - speed[0] / speed[1]) * 100, 1)
    return result


def _say(stored: int) -> None:
    print(f"\r{stored:,} events stored", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.exactness", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="events a run")
    parser.add_argument("--stored", type=int, default=10_000_000, help="events stored before")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the engine's data is kept meanwhile")
    arguments = parser.parse_args()
    with temporary_engine(arguments.folder) as engine:
        result = measure(engine, arguments.events, arguments.stored, arguments.runs)
    print(file=sys.stderr)
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
