"""Start, stop, kill -9, and what stands in the way of a start."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.waiting import wait_until

from .conftest import StartEngine, free_port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_the_data_is_there_again(start_engine: StartEngine, number: int) -> None:
    engine = start_engine().wait_ready()
    engine.query("CREATE TABLE t (n UInt64) ORDER BY n")
    engine.query("INSERT INTO t SELECT number FROM numbers(1000)")
    assert engine.stop(number) == 0
    assert "engine.stopped" in engine.text
    again = start_engine(port=engine.port).wait_ready()
    assert again.query("SELECT count() FROM t") == "1000\n"


def test_requests_under_way_are_finished_first(start_engine: StartEngine) -> None:
    engine = start_engine().wait_ready()
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(engine.url, content="SELECT sleep(1.5)", timeout=30))
    )
    asking.start()
    time.sleep(0.5)
    assert engine.stop() == 0
    asking.join()
    assert answers[0].text == "0\n"


def test_a_query_that_does_not_end_is_stopped(start_engine: StartEngine) -> None:
    engine = start_engine(MIDSTREAM_DRAIN_TIMEOUT_MS="1000").wait_ready()
    sql = b"SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"
    connection = socket.create_connection(("127.0.0.1", engine.port))
    connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(sql), sql))
    time.sleep(0.5)
    started = time.monotonic()
    assert engine.stop() == 0
    assert time.monotonic() - started < 10
    connection.close()
    assert start_engine(port=engine.port).wait_ready().query("SELECT 1") == "1\n"


def test_a_second_process_names_the_folder_and_ends(start_engine: StartEngine) -> None:
    engine = start_engine().wait_ready()
    second = start_engine()
    assert second.process.wait(30) == 1
    assert f"The folder {engine.home / 'clickhouse'} is in use" in second.text
    assert f"process {engine.process.pid}" in second.text
    assert engine.query("SELECT 1") == "1\n"


def test_a_port_in_use_is_named(start_engine: StartEngine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        engine = start_engine(port=port)
        assert engine.process.wait(30) == 1
    assert f"Port {port} of 127.0.0.1 is in use" in engine.text
    assert "MIDSTREAM_LOCAL_CLICKHOUSE_PORT" in engine.text


def test_a_wrong_setting_is_named(start_engine: StartEngine) -> None:
    engine = start_engine(MIDSTREAM_ENGINE_THREADS="0")
    assert engine.process.wait(30) == 1
    assert "MIDSTREAM_ENGINE_THREADS" in engine.text


def test_a_home_with_blanks(start_engine: StartEngine, tmp_path) -> None:  # type: ignore[no-untyped-def]
    engine = start_engine(home=tmp_path / "a home & co")
    assert engine.process.wait(30) == 1
    assert "must not contain" in engine.text
    assert start_engine(home=tmp_path / "a home é").wait_ready().query("SELECT 1") == "1\n"


def test_acknowledged_rows_survive_kill_9_in_the_middle_of_inserts(start_engine: StartEngine) -> None:
    engine = start_engine().wait_ready()
    engine.query("CREATE TABLE t (n UInt64, s String) ORDER BY n SETTINGS non_replicated_deduplication_window = 10000")
    acknowledged: set[int] = set()
    sent: set[int] = set()

    def insert(worker: int) -> None:
        with httpx.Client(timeout=10) as client:
            for number in range(worker, 100_000, 4):
                sent.add(number)
                body = b"INSERT INTO t FORMAT TSV\n" + b"%d\tx\n" % number * 50
                try:
                    answer = client.post(engine.url, params={"insert_deduplication_token": str(number)}, content=body)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    acknowledged.add(number)

    workers = [threading.Thread(target=insert, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    wait_until("some have been answered", lambda: len(acknowledged) > 20, 60)
    engine.process.kill()
    engine.process.wait(30)
    for worker in workers:
        worker.join()

    again = start_engine(port=free_port()).wait_ready()

    def rows_of_each() -> dict[int, int]:
        lines = again.query("SELECT n, count() FROM t GROUP BY n").splitlines()
        return {int(number): int(rows) for number, rows in (line.split("\t") for line in lines)}

    stored = rows_of_each()
    assert acknowledged <= set(stored)
    # What was not answered is stored whole or not at all; sent again under its token, it is not there twice.
    assert set(stored.values()) == {50}
    assert set(stored) <= sent
    unanswered = sent - acknowledged
    for number in (*unanswered, *sorted(acknowledged)[-20:]):
        body = b"INSERT INTO t FORMAT TSV\n" + b"%d\tx\n" % number * 50
        again.query(body, insert_deduplication_token=str(number))
    stored = rows_of_each()
    assert set(stored.values()) == {50}
    # The engine notes a token before the part: killed between the two, it knows tokens without rows. Whoever looks and
    # takes the next token has them there (processors/store/writer.py).
    without_rows = sent - set(stored)
    assert without_rows <= unanswered
    for number in without_rows:
        body = b"INSERT INTO t FORMAT TSV\n" + b"%d\tx\n" % number * 50
        again.query(body, insert_deduplication_token=f"{number}/1")
    assert again.query("SELECT count(), uniqExact(n) FROM t") == f"{50 * len(sent)}\t{len(sent)}\n"
    assert again.stop() == 0


def test_a_part_that_a_full_disk_left_broken_is_healed_by_starting_anew(start_engine: StartEngine) -> None:
    engine = start_engine().wait_ready()
    engine.query("CREATE TABLE t (n UInt64, s String) ORDER BY n")
    for start in range(0, 3_000, 1_000):
        engine.query(f"INSERT INTO t SELECT number + {start}, toString(number) FROM numbers(1000)")
    engine.query("OPTIMIZE TABLE t FINAL")
    folder = Path(engine.query("SELECT path FROM system.parts WHERE table = 't' AND active").strip())
    [marks] = folder.glob("data.cmrk*")
    marks.write_bytes(b"")
    answer = httpx.post(engine.url, content="SELECT sum(length(s)) FROM t", timeout=30)
    assert "CORRUPTED_DATA" in answer.text
    assert engine.process.wait(30) == 0
    assert "engine.part_broken" in engine.text
    again = start_engine(port=engine.port).wait_ready()
    assert again.query("SELECT count(), sum(n) FROM t") == f"3000\t{sum(range(3_000))}\n"
    assert f"broken-on-start_{folder.name}" in again.text

    # What starting anew does not heal ends no engine again and again.
    again.query("OPTIMIZE TABLE t FINAL")
    folder = Path(again.query("SELECT path FROM system.parts WHERE table = 't' AND active").strip())
    [marks] = folder.glob("data.cmrk*")
    marks.write_bytes(b"")
    for _ in range(2):
        assert "CORRUPTED_DATA" in httpx.post(again.url, content="SELECT sum(length(s)) FROM t", timeout=30).text
    time.sleep(1)
    assert again.query("SELECT 1") == "1\n"
    assert "engine.part_stays_broken" in again.text
