"""What downloads of datasets cost: ``python -m bench.exhaust --help``.

Starts a pipeline of its own with a closed day of events that the engine makes, and measures side by side: the engine's
own answer to the same query, written to a file; the day built and downloaded; the day downloaded again; memory of the
builder and of the api; and the collector's replies without and with days being built and downloaded beside it.
Prints JSON; exit code 1: a count was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from bench.control import parse_us_per_event
from bench.load import Load, Runner
from bench.pipeline import BenchPipeline, bench_folder
from bench.processes import processes_by_kind
from bench.stored import let_merge
from midstream.clickhouse.client import open_client
from midstream.exhaust.dataset import D001
from midstream.exhaust.period import bounds_ms
from midstream.exhaust.queries import lines_of
from midstream.exhaust.variant import Variant
from midstream.registry.engine import open_engine
from midstream.registry.exhaust.licences import Licences
from midstream.settings import Settings

_PARTNER = "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8"
_CHUNK = 250_000
_READ_BYTES = 1 << 20
_TIMEOUT_S = 3_600
_SPILL_BYTES = 2 << 30
"""Of a whole day that is sorted at once: a larger one does not fit into the local engine's memory."""
_SAMPLE_S = 0.1
_CLOSED_S = 60.0
_BUILDER = "serve.exhaust.days.builder"

_FILL = """
INSERT INTO learning_events (mid, mid_hash, eid, ver, ets, received_at, stored_at, channel, env, did, actor_id,
    actor_type, object_id, tags, edata, batch_id, event_index, raw)
SELECT concat('INTERACT:', lower(hex(sipHash128(number)))) AS mid, xxh3(mid), 'INTERACT', '3.0', at, at, at,
    concat('channel-', toString(number % 5)) AS channel, 'home', concat('device-', toString(number % 10000)) AS did,
    concat('user-', toString(number % 10000)) AS user, 'User', concat('do_', toString(number % 500)) AS content,
    [{partner:String}], '', lower(hex(sipHash128(intDiv(number, 20), 1))), number % 20,
    concat('{"eid":"INTERACT","ets":', toString(toUnixTimestamp64Milli(at)), ',"ver":"3.0","mid":"', mid,
        '","actor":{"id":"', user, '","type":"User"},"context":{"channel":"', channel, '","env":"home","did":"', did,
        '","sid":"', lower(hex(sipHash128(intDiv(number, 50), 2))), '","pdata":{"id":"prod.app","pid":"player",',
        '"ver":"3.1.4"},"cdata":[{"type":"Class","id":"', toString(number % 300), '"}]},"object":{"id":"', content,
        '","type":"Content","ver":"2"},"edata":{"type":"TOUCH","id":"next","pageid":"',
        lower(hex(sipHash128(number, 3))), '","subtype":"forward","extra":{"pos":[{"x":', toString(number % 1080),
        ',"y":', toString(number % 1920), '}],"values":["', lower(hex(sipHash128(number, 4))),
        '","a longer text that stands in every event"],"plugin":{"id":"org.example.navigation","ver":"1.0"}}},',
        '"tags":["', {partner:String}, '"]}')
FROM (SELECT number, fromUnixTimestamp64Milli({begin:Int64} + toInt64(intDiv(number * 86400000, {events:UInt64}))) AS at
    FROM numbers({from:UInt64}, {count:UInt64}))
"""


class Partner:
    """Who downloads."""

    def __init__(self, settings: Settings, key: str, day: date) -> None:
        self._url = f"http://127.0.0.1:{settings.port}/v1/datasets/{D001.name}/{_PARTNER}/{day}/{day}"
        self._key = key

    def manifest(self) -> dict[str, Any]:
        """Return the day's manifest."""
        with self._open("/manifest", {}) as reply:
            told: dict[str, Any] = json.load(reply)
        return told

    def download(self, path: Path, **query: list[str]) -> dict[str, float]:
        """Download to a file; return how long it took."""
        began = time.monotonic()
        first_s = 0.0
        size = 0
        with self._open("", query) as reply, path.open("wb") as file:
            while chunk := reply.read1(_READ_BYTES):
                first_s = first_s or time.monotonic() - began
                size += len(chunk)
                file.write(chunk)
        return {"first_byte_s": round(first_s, 3), "seconds": round(time.monotonic() - began, 2), "zip_mb": size / 1e6}

    @contextmanager
    def _open(self, path: str, query: dict[str, list[str]]) -> Iterator[Any]:
        url = f"{self._url}{path}?{urlencode(query, doseq=True)}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self._key}"})  # noqa: S310  ours
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:  # noqa: S310
            yield reply


class Memory:
    """The most that each kind of process has held, sampled while it lasts; in MB."""

    def __init__(self, pipeline: BenchPipeline) -> None:
        self._home = pipeline.home
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.first_mb: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}
        self.builder_cpu_s = 0.0

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            for process in processes_by_kind(self._home).get("collector and api", []):
                with contextlib.suppress(psutil.Error):
                    line = " ".join(process.cmdline())
                    name = "builder" if _BUILDER in line else f"web {process.pid}"
                    held_mb = process.memory_info().rss / 1e6
                    self.first_mb.setdefault(name, held_mb)
                    self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), held_mb)
                    if name == "builder":
                        times = process.cpu_times()
                        self.builder_cpu_s = max(self.builder_cpu_s, times.user + times.system)

    def for_json(self) -> dict[str, Any]:
        """Return what was seen."""
        grown = {name: round(self.peak_mb[name] - first, 1) for name, first in self.first_mb.items()}
        return {"peak_mb": {name: round(mb, 1) for name, mb in self.peak_mb.items()}, "grown_mb": grown}


def make_day(settings: Settings, day: date, events: int) -> None:
    """Store a day of events, evenly over it, and wait until the day is closed."""
    clickhouse = open_client(settings, timeout_ms=_TIMEOUT_S * 1000)
    try:
        begin_ms, _ = bounds_ms(day)
        for start in range(0, events, _CHUNK):
            count = min(_CHUNK, events - start)
            asked = {"begin": begin_ms, "events": events, "from": start, "count": count, "partner": _PARTNER}
            clickhouse.rows(_FILL, asked)
        let_merge(clickhouse)
        end = time.monotonic() + _CLOSED_S
        while not clickhouse.rows("SELECT complete_until > today() FROM complete_until")[0][0]:
            if time.monotonic() > end:
                raise TimeoutError("the day does not close")
            time.sleep(0.5)
    finally:
        clickhouse.close()


def engine_alone(settings: Settings, day: date, path: Path, **more: object) -> dict[str, float]:
    """Let the engine write the day's lines to a file: the same query, whole."""
    sql, parameters, form = lines_of(D001, _PARTNER, Variant(), *bounds_ms(day))
    asked = {f"param_{name}": json.dumps(v) if isinstance(v, list) else v for name, v in parameters.items()}
    more = {"max_bytes_before_external_sort": _SPILL_BYTES, **more}
    asked = {name: str(value).replace('"', "'") for name, value in {**asked, **more}.items()}
    url = f"http://127.0.0.1:{settings.local_clickhouse_port}/?{urlencode({'database': 'midstream', **asked})}"
    began = time.monotonic()
    size = 0
    request = urllib.request.Request(url, data=f"{sql} FORMAT {form}".encode())
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply, path.open("wb") as file:  # noqa: S310
        while chunk := reply.read1(_READ_BYTES):
            size += len(chunk)
            file.write(chunk)
    seconds = time.monotonic() - began
    path.unlink()
    return {"lines_mb": size / 1e6, "seconds": round(seconds, 2), "mb_s": round(size / 1e6 / seconds, 1)}


def beside(
    pipeline: BenchPipeline, partner: Partner, path: Path, rate_per_s: float, seconds: float, pairs: int
) -> dict[str, Any]:
    """Return the collector's replies without and with days built and downloaded beside it, pair by pair."""
    runner = Runner(pipeline)
    load = Load(int(rate_per_s * seconds) // 20 * 20, rate_events_s=rate_per_s)
    runner.run(Load(2_000))
    found: dict[str, list[dict[str, float]]] = {"alone": [], "beside downloads": []}
    downloads = 0
    for number in range(pairs):
        found["alone"].append(runner.run(load).reply_ms)
        over = threading.Event()

        def download(number: int = number, over: threading.Event = over) -> None:
            nonlocal downloads
            while not over.is_set():
                # Another filter that lets all through: the day is built anew each time.
                partner.download(path, eid=["INTERACT", f"NONE-{number}-{downloads}"])
                partner.download(path)
                downloads += 1

        thread = threading.Thread(target=download, daemon=True)
        thread.start()
        found["beside downloads"].append(runner.run(load).reply_ms)
        over.set()
        thread.join()
    medians = {
        name: {p: round(statistics.median(one[p] for one in runs), 1) for p in ("p50", "p95", "p99")}
        for name, runs in found.items()
    }
    ratios = [b["p99"] / a["p99"] for a, b in zip(*found.values(), strict=True)]
    return {
        "events_s": rate_per_s,
        "downloads": downloads,
        "reply_ms": medians,
        "p99_ratios": [round(ratio, 2) for ratio in ratios],
        "p99_ratio": round(statistics.median(ratios), 2),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=1_500_000, help="of the day; each some 750 bytes")
    parser.add_argument("--rate", type=float, default=1_000.0, help="events a second of the load beside downloads")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--pairs", type=int, default=3, help="loads without and with downloads; 0: none")
    args = parser.parse_args()
    day = datetime.now(UTC).date() - timedelta(days=2)
    folder = Path(tempfile.mkdtemp(prefix="midstream-bench-"))
    with bench_folder(folder) as held, BenchPipeline(held, partitions=2) as pipeline:
        settings = pipeline.settings
        registry = open_engine(settings)
        partner = Partner(settings, Licences(registry).create("bench", [(D001.name, _PARTNER)]), day)
        registry.dispose()
        make_day(settings, day, args.events)
        path = folder / "download.zip"
        result: dict[str, Any] = {"events": args.events, "control_us": round(parse_us_per_event(), 2)}
        result["the engine alone"] = engine_alone(settings, day, path)
        result["the engine alone, one thread"] = engine_alone(settings, day, path, max_threads=1)
        lines_mb = result["the engine alone"]["lines_mb"]
        with Memory(pipeline) as memory:
            built = partner.download(path)
        result["built and downloaded"] = {
            **built,
            "lines_mb_s": round(lines_mb / built["seconds"], 1),
            "of the engine alone": round(result["the engine alone"]["seconds"] / built["seconds"], 2),
            "builder_cpu_s": round(memory.builder_cpu_s, 2),
            "memory": memory.for_json(),
        }
        with Memory(pipeline) as memory:
            kept = partner.download(path)
        result["downloaded again"] = {
            **kept,
            "lines_mb_s": round(lines_mb / kept["seconds"], 1),
            "memory": memory.for_json(),
        }
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip() is not None
        wrong = wrong or partner.manifest()["days"][0]["events"] != args.events
        if args.pairs:
            result["collector"] = beside(pipeline, partner, path, args.rate, args.seconds, args.pairs)
        result["control_us_after"] = round(parse_us_per_event(), 2)
        path.unlink()
    print(json.dumps({**result, "counts are right": not wrong}, indent=1))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
