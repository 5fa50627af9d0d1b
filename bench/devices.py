"""What reading and storing devices' states costs beside millions of rows: ``python -m bench.devices --help``.

Runs an engine of its own in a temporary folder and has it make the rows, as five reports of ten keys of each device.
Then reads states, statuses and histories as the api does, and stores reports as the worker does. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.engine import Engine, temporary_engine
from midstream import topics
from midstream.clickhouse.client import ClickHouse, open_client
from midstream.devices.record import encode_report
from midstream.devices.report import STATUS_KEY, read_report
from midstream.devices.state import AHEAD_US
from midstream.devices.stored import read_history, read_state, read_statuses
from processors.devices.storer import DeviceStorer
from processors.lease import Lease
from processors.store.storer import StoreRecord

_KEYS = 10  # of a report, its status included
_REPORTS = 5
_CHUNK = 1_000_000
_PAGE = 50
_START_US = 1_767_225_600_000_000  # 2026-01-01
_STEP_US = 10_000_000
_AHEAD = 100  # one device in so many has a clock far ahead

# Report by report, as they come: all devices report, then all report again.
_FILL = f"""INSERT INTO device_rows (device_id, kind, key, at, digest, receipt_id, value, own_at_us, received_at,
    stored_at)
WITH intDiv(number, {_KEYS}) % {{devices:UInt64}} AS device, device % {_AHEAD} = 0 AS is_ahead,
    {_START_US} + intDiv(number, {_KEYS} * {{devices:UInt64}}) * {_STEP_US} AS received_us
SELECT concat('device-', toString(device)), 'value',
    if(number % {_KEYS} = 0, '{STATUS_KEY}', concat('sensor.', toString(number % {_KEYS}))),
    fromUnixTimestamp64Micro(received_us + if(is_ahead, {AHEAD_US}, 0), 'UTC'),
    SHA256(toString(intDiv(number, {_KEYS}))), '', if(number % {_KEYS} = 0, '"online"', toString(number / 8)),
    received_us + if(is_ahead, 2 * {AHEAD_US}, 0),
    fromUnixTimestamp64Micro(received_us, 'UTC'), fromUnixTimestamp64Micro(received_us, 'UTC')
FROM numbers({{from:UInt64}}, {{count:UInt64}})"""  # noqa: S608 - constants
_FILL_AHEAD = f"""INSERT INTO device_ahead_rows
SELECT device_id, digest, min(at) FROM device_rows
WHERE toUInt64(splitByChar('-', device_id)[2]) % {_AHEAD} = 0 AND key = '{STATUS_KEY}'
GROUP BY device_id, digest"""  # noqa: S608 - constants


def fill(clickhouse: ClickHouse, devices: int, say: Callable[[str], None]) -> int:
    """Store the reports of so many devices; return the number of rows."""
    rows = devices * _REPORTS * _KEYS
    for begin in range(0, rows, _CHUNK):
        count = min(_CHUNK, rows - begin)
        clickhouse.rows(_FILL, {"devices": devices, "from": begin, "count": count})
        say(f"{begin + count:,} rows stored")
    clickhouse.rows(_FILL_AHEAD)
    return rows


def read(clickhouse: ClickHouse, devices: int, reads: int) -> dict[str, Any]:
    """Return how long reads of each kind take, as the only one who asks."""
    choice = random.Random(1)
    rows = clickhouse.rows

    def some(step: int = 1) -> str:
        return f"device-{choice.randrange(devices // step) * step}"

    def state(device: str) -> None:
        if len(read_state(rows, device)) != _KEYS:
            raise RuntimeError(f"{device} has another state")

    kinds: dict[str, Callable[[], Any]] = {
        "the client's own time (SELECT 1)": lambda: rows("SELECT 1", None),
        "state": lambda: state(some()),
        "state of a device ahead": lambda: state(some(_AHEAD)),
        "state at a moment": lambda: read_state(rows, some(), _START_US + 3 * _STEP_US),
        f"statuses of {_PAGE}": lambda: read_statuses(rows, [some() for _ in range(_PAGE)]),
        "history of a key": lambda: read_history(rows, some(), "sensor.1"),
        "device_state of one": lambda: rows(
            "SELECT * FROM device_state WHERE device_id = {device:String}", {"device": some()}
        ),
    }
    times: dict[str, Any] = {}
    for name, work in kinds.items():
        work()
        took = []
        for _ in range(reads):
            began = time.perf_counter()
            work()
            took.append((time.perf_counter() - began) * 1000)
        took.sort()
        times[name] = {
            "p50_ms": round(took[len(took) // 2], 1),
            "p95_ms": round(took[int(len(took) * 0.95)], 1),
            "max_ms": round(took[-1], 1),
        }
    return times


def store(engine: Engine, devices: int, reports: int, together: int) -> dict[str, float]:
    """Return the CPU time a report, from Kafka's bytes to the rows, of the worker's own steps and of the engine."""
    records = []
    for number in range(reports):
        at_us = _START_US + (100 + number // devices) * _STEP_US
        sent = {
            "status": "online",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_us / 1e6)),
            "telemetries": {f"sensor.{key}": number / 8 + key for key in range(1, _KEYS)},
        }
        report = read_report(f"device-{number % devices}", sent, at_us, str(number))
        records.append(StoreRecord(topics.DEVICE.name, 0, number, at_us // 1_000, encode_report(report)))
    storer = DeviceStorer(engine.clickhouse, Lease(3_600_000), 1)
    storer.store(records[:together])
    began, cpu_s, engine_cpu_s = time.monotonic(), time.process_time(), engine.cpu_s()
    for start in range(together, reports, together):
        storer.store(records[start : start + together])
    took_s = time.monotonic() - began
    return {
        "worker_us": round((time.process_time() - cpu_s) / (reports - together) * 1e6, 1),
        "engine_us": round((engine.cpu_s() - engine_cpu_s) / (reports - together) * 1e6, 1),
        "reports_per_s": round((reports - together) / took_s),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=200, help="of each kind")
    parser.add_argument("--reports", type=int, default=20_000, help="that are stored for measuring")
    parser.add_argument("--together", type=int, default=500, help="reports of one insert")
    parser.add_argument("--folder", type=Path, help="where the data is made; default: the system's temporary folder")
    args = parser.parse_args()
    if args.devices < _AHEAD or args.reads < 1 or not 1 <= args.together < args.reports:
        parser.error(f"at least {_AHEAD} devices, one read, and more reports than go together")
    with temporary_engine(args.folder) as engine:
        reader = open_client(engine.settings, max_threads=1)
        began = time.monotonic()
        rows = fill(engine.clickhouse, args.devices, lambda line: print(line, file=sys.stderr))
        result: dict[str, Any] = {"devices": args.devices, "rows": rows, "filled_s": round(time.monotonic() - began, 1)}
        result["read"] = read(reader, args.devices, args.reads)
        result["store"] = store(engine, args.devices, args.reports, args.together)
        result["read_after"] = read(reader, args.devices, args.reads)
        reader.close()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
