"""What the denormalise step costs: CPU us an event, ``python -m bench.denormalise``, without ClickHouse.

Blocks of the measured mix (:mod:`bench.mix`). Before each turn one in twenty of the ids that a block names is
forgotten, so that 95% of the look-ups are hits; what asking ClickHouse costs the process itself is not in it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence

import pyarrow as pa

from bench.blocks import open_judge, raw_records, seal, store_records
from bench.control import cpu_s
from bench.steps import NoClickHouse
from midstream.settings import Settings
from processors.store.block import read_block
from processors.store.denormalise import denormalise
from processors.store.dimension_cache import DimensionCache

HIT_RATIO = 0.95

_TURNS = 40


def make_block(settings: Settings, seed: int, rows: int) -> pa.RecordBatch:
    """Return a block of so many rows of the mix."""
    sealed = seal(settings, open_judge(settings), raw_records(seed, rows * 2, 200), 1)
    batches = [read_block(record.value)[0] for record in store_records(sealed)]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0].slice(0, rows)


def measure(settings: Settings, rows: int, turns: int = _TURNS) -> float:
    """Return the median CPU us an event in blocks of ``rows``."""
    block = make_block(settings, 7, rows)
    cache = DimensionCache(
        NoClickHouse(), settings.dimension_cache_entries, settings.dimension_cache_bytes, settings.dimension_negative_ms
    )
    cache.follow(True)
    denormalise(block, cache)
    rng = random.Random(rows)
    taken: list[float] = []
    for _ in range(turns):
        for held in cache._held.values():
            for id_ in rng.sample(list(held), round(len(held) * (1 - HIT_RATIO))):
                del held[id_]
        taken.append(cpu_s(lambda: denormalise(block, cache)) / rows * 1e6)
    return statistics.median(taken)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.denormalise", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 5_000], help="rows of a block")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="midstream-bench-") as home:
        settings = Settings.model_validate({"home": home, "registry": "", "kafka": "", "clickhouse": ""})
        figures = {f"{rows} rows": round(measure(settings, rows), 3) for rows in given.rows}
    sys.stdout.write(json.dumps({"cpu_us_an_event": figures, "hit_ratio": HIT_RATIO}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
