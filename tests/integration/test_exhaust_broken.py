"""Downloads of a large day while something breaks: who downloads can tell, nothing is left, and memory stays flat."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.outside import Outside, Row, start_process, stop_process, web_workers
from tests.integration.partners import Partner, builders, error_of, exhaust_folder, worker_of
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

RESOURCE = hashlib.sha1(b"a partner with a large day").hexdigest()
EVENTS = 1_000_000
LINE_BYTES = 1_000
"""At least, of each event."""
MIB = 1 << 20

MAX_GROWTH_BYTES = 100 * MIB
MAX_BUILDER_BYTES = 100 * MIB
GONE_S = 5.0

SLOW_BYTES_PER_S = 5 * MIB
SLOW_S = 8

# Of letters and digits as events have them: names that return, and numbers that do not.
_FILL = """\
INSERT INTO learning_events (mid, eid, received_at, channel, tags, batch_id, event_index, raw)
SELECT concat('LARGE:', toString(number)), 'INTERACT',
    fromUnixTimestamp64Milli({begin:Int64} + intDiv(number * 86400000, {events:Int64})), 'channel-1', [{tag:String}],
    hex(intDiv(number, 20)), number % 20,
    concat('{"eid":"INTERACT","ver":"3.0","mid":"LARGE:', toString(number), '","edata":{"type":"TOUCH","text":"',
        hex(randomString(150)), '","more":"', repeat('subtype of a page ', 33), '"}}')
FROM numbers({from:UInt64}, {count:UInt64})"""
_FILL_ROWS = 100_000


def long_ago() -> date:
    return datetime.now(UTC).date() - timedelta(days=20)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A pipeline with one large day."""
    with Pipeline(tmp_path_factory.mktemp("large") / "home") as pipeline, closing(Outside(pipeline)) as clients:
        midnight = datetime.combine(long_ago(), datetime.min.time(), UTC)
        for number in range(0, EVENTS, _FILL_ROWS):
            clients.rows(
                _FILL,
                begin=int(midnight.timestamp() * 1000),
                events=EVENTS,
                tag=RESOURCE,
                **{"from": number, "count": _FILL_ROWS},
            )
        yield clients


@pytest.fixture(scope="module")
def pipeline(outside: Outside) -> Pipeline:
    return outside.pipeline


@pytest.fixture(scope="module")
def partner(outside: Outside) -> Partner:
    return Partner(outside, ("D001", RESOURCE))


@pytest.fixture(autouse=True)
def unbuilt(pipeline: Pipeline) -> None:
    """No day is built."""
    wait_until("nothing is built", lambda: not building(pipeline), GONE_S)
    shutil.rmtree(exhaust_folder(pipeline), ignore_errors=True)


def building(pipeline: Pipeline) -> list[psutil.Process]:
    """Return the processes that build a day now; others wait for one."""
    found = []
    for process in builders(pipeline):
        with suppress(psutil.NoSuchProcess):
            if any(file.path.endswith(".part") for file in process.open_files()):
                found.append(process)
    return found


def queries(outside: Outside) -> int:
    """Return how many queries read events for a download now."""
    sql = "SELECT count() FROM system.processes WHERE query LIKE '%receipt%' AND query NOT LIKE '%system.processes%'"
    return int(outside.value(sql))


def left(pipeline: Pipeline) -> set[str]:
    """Return what lies in the folder of built days, but for locks."""
    files = (path for path in exhaust_folder(pipeline).rglob("*") if path.is_file())
    return {path.name for path in files if path.suffix not in (".lock", ".waiting")}


def wait_gone(pipeline: Pipeline, builder: psutil.Process) -> None:
    """Wait until a builder has ended, and nothing that it had begun is there."""
    wait_until("the builder has ended", lambda: builder not in builders(pipeline), GONE_S)
    wait_until("nothing is left", lambda: not left(pipeline), GONE_S)


def logged(outside: Outside, partner: Partner, since: datetime, rows: int) -> list[Row]:
    """Wait for so many rows of the log of downloads; return them."""
    sql = (
        "SELECT complete, sent_bytes, status FROM exhaust_downloads "
        "WHERE licence = {name:String} AND at >= {since:DateTime64(3)} ORDER BY at"
    )

    def found() -> list[Row]:
        return outside.rows(sql, name=partner.name, since=since)

    wait_until(f"{rows} downloads are logged", lambda: len(found()) == rows, 30, 0.5)
    return found()


def keep(reply: httpx.Response, file: Path) -> None:
    """Write what comes of a download to a file, as far as it comes."""
    with file.open("wb") as opened:
        opened.writelines(reply.iter_bytes())


def check_whole(file: Path) -> None:
    """Check that a download is whole, and has all events."""
    with zipfile.ZipFile(file) as outer:
        assert outer.namelist() == [f"aggregated-{long_ago()}.gz"]
        assert outer.testzip() is None
        with outer.open(outer.namelist()[0]) as day, zipfile.ZipFile(day) as inner:
            assert len(inner.namelist()) == 24


def test_the_engine_dies_while_a_day_is_sent(
    outside: Outside, pipeline: Pipeline, partner: Partner, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    file = tmp_path / "broken.zip"
    with partner.stream(long_ago(), long_ago()) as reply, file.open("wb") as opened:
        chunks = reply.iter_bytes()
        while opened.tell() < 4 * MIB:
            opened.write(next(chunks))
        pipeline.kill("engine")
        with pytest.raises(httpx.RemoteProtocolError):
            opened.writelines(chunks)
    assert not zipfile.is_zipfile(file)
    assert left(pipeline) == set()
    pipeline.wait_ready()
    with partner.stream(long_ago(), long_ago()) as reply:
        keep(reply, file)
    check_whole(file)
    broken, whole = logged(outside, partner, began, 2)
    assert (broken["complete"], broken["status"], whole["complete"]) == (False, 200, True)
    assert 4 * MIB <= broken["sent_bytes"] < whole["sent_bytes"] == file.stat().st_size


def test_an_engine_that_is_away_is_a_refusal(pipeline: Pipeline, partner: Partner) -> None:
    stop_process(pipeline, "engine")
    try:
        reply = partner.post(partner.url(long_ago(), long_ago()))
    finally:
        start_process(pipeline, "engine")
        pipeline.wait_ready()
    assert error_of(reply) == (503, "INTERNAL_ERROR")
    assert int(reply.headers["retry-after"]) > 0


def test_a_worker_dies_while_it_sends(pipeline: Pipeline, partner: Partner, tmp_path: Path) -> None:
    file = tmp_path / "broken.zip"
    workers = set(web_workers(pipeline))
    with partner.stream(long_ago(), long_ago()) as reply, file.open("wb") as opened:
        worker = worker_of(pipeline, reply)
        chunks = reply.iter_bytes()
        while opened.tell() < 4 * MIB:
            opened.write(next(chunks))
        (builder,) = building(pipeline)
        builder.suspend()  # so that it is not done before it can know
        os.kill(worker, signal.SIGKILL)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            opened.writelines(chunks)
        builder.resume()
    assert not zipfile.is_zipfile(file)
    wait_gone(pipeline, builder)
    wait_until("there are two workers", lambda: len(set(web_workers(pipeline)) | {worker}) == 3, 60)
    assert set(web_workers(pipeline)) - workers
    pipeline.wait_ready()
    with partner.stream(long_ago(), long_ago()) as reply:
        keep(reply, file)
    check_whole(file)


def test_who_stops_breaks_off_what_it_sends(
    outside: Outside, pipeline: Pipeline, partner: Partner, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    file = tmp_path / "broken.zip"
    with partner.stream(long_ago(), long_ago()) as reply, file.open("wb") as opened:
        chunks = reply.iter_bytes()
        while opened.tell() < 4 * MIB:
            opened.write(next(chunks))
        (builder,) = building(pipeline)
        stop_process(pipeline, "web")
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            opened.writelines(chunks)
    assert not zipfile.is_zipfile(file)
    wait_gone(pipeline, builder)
    start_process(pipeline, "web")
    pipeline.wait_ready()
    (row,) = logged(outside, partner, began, 1)
    assert (row["complete"], row["status"]) == (False, 200)
    assert row["sent_bytes"] >= 4 * MIB


def test_a_client_that_leaves_ends_what_was_begun_for_it(
    outside: Outside, pipeline: Pipeline, partner: Partner
) -> None:
    began = datetime.now(UTC)
    with partner.stream(long_ago(), long_ago()) as reply:
        chunks = reply.iter_bytes()
        received = 0
        while received < 4 * MIB:
            received += len(next(chunks))
        (builder,) = building(pipeline)
        wait_until("a query reads events", lambda: queries(outside), 10, 0.01)
    closed = time.monotonic()
    wait_gone(pipeline, builder)
    wait_until("no query goes on", lambda: not queries(outside), GONE_S - (time.monotonic() - closed))
    (row,) = logged(outside, partner, began, 1)
    assert (row["complete"], row["status"]) == (False, 200)
    assert row["sent_bytes"] >= received


class Memory:
    """The most memory that processes have held while this was watching."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._workers = [psutil.Process(pid) for pid in web_workers(pipeline)]
        self._before = {process.pid: process.memory_info().rss for process in self._workers}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.growth_bytes = 0
        """Of the web worker that has grown most."""
        self.builder_bytes = 0
        """Of the builder that was largest; 0: there was none."""

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _watch(self) -> None:
        found: list[psutil.Process] = []
        rounds = 0
        while not self._ended.wait(0.02):
            if rounds % 25 == 0:
                found = builders(self._pipeline)
            rounds += 1
            for process in self._workers:
                grown = process.memory_info().rss - self._before[process.pid]
                self.growth_bytes = max(self.growth_bytes, grown)
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    self.builder_bytes = max(self.builder_bytes, process.memory_info().rss)


def test_memory_is_flat(pipeline: Pipeline, partner: Partner, tmp_path: Path) -> None:
    file = tmp_path / "large.zip"
    with Memory(pipeline) as building_, partner.stream(long_ago(), long_ago()) as reply:
        keep(reply, file)
    check_whole(file)
    (day,) = partner.manifest(long_ago(), long_ago())
    assert day["events"] == EVENTS
    with Memory(pipeline) as kept, partner.stream(long_ago(), long_ago()) as reply:
        assert int(reply.headers["content-length"]) == file.stat().st_size
        for _ in reply.iter_bytes():
            pass
    assert building_.builder_bytes > 10 * MIB
    assert building_.builder_bytes < MAX_BUILDER_BYTES
    assert building_.growth_bytes < MAX_GROWTH_BYTES
    assert kept.growth_bytes < MAX_GROWTH_BYTES


@pytest.mark.parametrize("built", [False, True], ids=["building", "kept"])
def test_memory_is_flat_for_a_slow_client(pipeline: Pipeline, partner: Partner, built: bool) -> None:
    if built:
        with partner.stream(long_ago(), long_ago()) as reply:
            for _ in reply.iter_bytes():
                pass
    with Memory(pipeline) as memory, partner.stream(long_ago(), long_ago()) as reply:
        began: float | None = None
        received = 0
        for chunk in reply.iter_raw(65_536):
            began = began or time.monotonic()
            received += len(chunk)
            if received >= SLOW_S * SLOW_BYTES_PER_S:
                break
            time.sleep(max(0.0, received / SLOW_BYTES_PER_S - (time.monotonic() - began)))
        assert received >= SLOW_S * SLOW_BYTES_PER_S
    assert memory.growth_bytes < MAX_GROWTH_BYTES
    assert memory.builder_bytes < MAX_BUILDER_BYTES
