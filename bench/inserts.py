"""What an insert costs the engine, and how large an event is once it is stored: ``python -m bench.inserts``; JSON.

Blocks of more and more events go into an engine of their own, as ``store`` inserts them: one insert a table and block.
By least squares: what a block costs whatever it holds, and what each of its events costs. Then parts are merged, and
their bytes on the disk divided by the events: as they are on the day of receipt, and later, when compressed anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.control import parse_us_per_event
from bench.engine import Engine, temporary_engine
from bench.part_limits import finished_inserts
from bench.stored import let_merge
from midstream.clickhouse.client import ClickHouse
from processors.store.route import EVENT_TABLES

_ROWS = (50, 200, 1_000, 5_000)
_BLOCKS = 12
_RUNS = 3
_OLD_DAYS = 3
"""By then what is merged is compressed anew."""

_SIZE = """
SELECT sum(rows), sum(bytes_on_disk) FROM system.parts
WHERE active AND database = currentDatabase() AND table IN {tables:Array(String)}
"""


def fit(costs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return ``(a, b)`` of the line ``a + b * rows`` that fits pairs of rows and cost best, relative to the cost."""
    rows = np.array([[1.0, rows] for rows, _ in costs])
    wanted = np.array([cost for _, cost in costs])
    (fixed, each), *_ = np.linalg.lstsq(rows / wanted[:, None], np.ones(len(wanted)), rcond=None)
    return float(fixed), float(each)


def insert(engine: Engine, rows: int, seed: int) -> dict[str, float]:
    """Insert some blocks of so many events; return what one takes, milliseconds of CPU and of waiting."""
    settings = engine.settings.model_copy(update={"seal_rows": rows})
    inserts = finished_inserts(settings, seed, max(_BLOCKS * rows // 20 * 20, 20))
    blocks = sum(table == EVENT_TABLES[0] for table, _, _ in inserts)
    cpu_s, began = engine.cpu_s(), time.monotonic()
    for number, (table, columns, body) in enumerate(inserts):
        engine.clickhouse.insert_stream(
            table, columns, body, f"{seed}/{rows}/{number}", tries=1, before_try=lambda _: None
        )
    took_s, cpu_s = time.monotonic() - began, engine.cpu_s() - cpu_s
    return {"cpu_ms": cpu_s / blocks * 1000, "wait_ms": took_s / blocks * 1000}


def bytes_per_event(clickhouse: ClickHouse, tables: Sequence[str]) -> float:
    """Return the bytes on the disk of each event in these tables, projections and indexes included, once merged."""
    for table in tables:
        clickhouse.command(f"OPTIMIZE TABLE {table} FINAL")
    let_merge(clickhouse)
    ((rows, size),) = clickhouse.rows(_SIZE, {"tables": list(tables)})
    return float(size) / float(rows)


def make_old(clickhouse: ClickHouse) -> list[str]:
    """Store the events once more, as if they had come some days ago; return the tables that they are in."""
    names = []
    for table in EVENT_TABLES:
        clickhouse.command(f"CREATE TABLE {table}_old AS {table}")
        clickhouse.command(
            f"INSERT INTO {table}_old SELECT * REPLACE (received_at - toIntervalDay({_OLD_DAYS}) AS received_at) "  # noqa: S608  constants
            f"FROM {table}"
        )
        names.append(f"{table}_old")
    return names


def measure(engine: Engine) -> dict[str, Any]:
    """Measure; the first insert of all is not counted."""
    insert(engine, _ROWS[-1], 1_000)
    found: dict[int, list[dict[str, float]]] = {rows: [] for rows in _ROWS}
    for run in range(_RUNS):
        for rows in _ROWS:
            found[rows].append(insert(engine, rows, run))
    least = {
        rows: {name: min(one[name] for one in some) for name in ("cpu_ms", "wait_ms")} for rows, some in found.items()
    }
    fixed_ms, each_ms = fit([(rows, one["cpu_ms"]) for rows, one in least.items()])
    on_the_day = bytes_per_event(engine.clickhouse, EVENT_TABLES)
    return {
        "blocks": {
            rows: {name: round(statistics.median(one[name] for one in some), 1) for name in ("cpu_ms", "wait_ms")}
            for rows, some in found.items()
        },
        "least": {rows: {name: round(ms, 1) for name, ms in one.items()} for rows, one in least.items()},
        "engine_ms_a_block": round(fixed_ms, 2),
        "engine_us_an_event": round(each_ms * 1000, 2),
        "bytes_an_event_on_the_day": round(on_the_day),
        "bytes_an_event_later": round(bytes_per_event(engine.clickhouse, make_old(engine.clickhouse))),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.inserts", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=None, help="where the engine's data is kept meanwhile")
    arguments = parser.parse_args()
    control = [round(parse_us_per_event(), 2)]
    with temporary_engine(arguments.folder) as engine:
        result = measure(engine)
    result["control_us"] = [*control, round(parse_us_per_event(), 2)]
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
