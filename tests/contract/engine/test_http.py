"""ClickHouse's HTTP interface as curl and other programs use it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import lz4.frame
import psutil
import pytest
from backports import zstd

from .conftest import EngineProcess


@pytest.fixture
def web(engine: EngineProcess) -> Iterator[httpx.Client]:
    # Without Accept-Encoding, as curl.
    with httpx.Client(base_url=engine.url, timeout=60, headers={"accept-encoding": "identity"}) as client:
        yield client


def assert_error(answer: httpx.Response, status: int, code: int, text: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["x-clickhouse-exception-code"] == str(code)
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert text in answer.text


def test_ping_and_paths(web: httpx.Client) -> None:
    assert web.get("/ping").text == "Ok.\n"
    assert web.get("/replicas_status").text == "Ok.\n"
    assert web.get("/").text == "Ok.\n"
    assert web.post("/").text == "Ok.\n"
    assert web.get("/nothing").status_code == 404


def test_the_answer_to_a_query_and_its_headers(web: httpx.Client) -> None:
    answer = web.get("/", params={"query": "SELECT number, 'x' FROM numbers(2)", "query_id": "my-id"})
    assert answer.text == "0\tx\n1\tx\n"
    assert answer.headers["x-clickhouse-query-id"] == "my-id"
    assert answer.headers["x-clickhouse-format"] == "TabSeparated"
    assert answer.headers["x-clickhouse-timezone"] == "UTC"
    assert answer.headers["x-clickhouse-server-display-name"] == "midstream"
    assert answer.headers["content-type"] == "text/tab-separated-values; charset=UTF-8"
    assert json.loads(answer.headers["x-clickhouse-summary"])["read_rows"] == "2"


def test_formats(web: httpx.Client) -> None:
    assert web.post("/", content="SELECT 1 AS a FORMAT JSONEachRow").text == '{"a":1}\n'
    assert web.post("/", params={"default_format": "CSVWithNames"}, content="SELECT 1 AS a").text == '"a"\n1\n'
    answer = web.post("/", headers={"x-clickhouse-format": "JSON"}, content="SELECT 1 AS a")
    assert answer.json()["data"] == [{"a": 1}]
    assert answer.headers["x-clickhouse-format"] == "JSON"
    assert web.post("/", content="SELECT number FROM numbers(200000) FORMAT JSON").json()["rows"] == 200_000
    assert web.post("/", content="SHOW DATABASES LIKE 'midstream'").text == "midstream\n"
    assert web.post("/", content="EXPLAIN SELECT 1;").status_code == 200
    assert web.post("/", content="SELECT 1 FORMAT Null").text == ""
    assert_error(web.post("/", content="SELECT 1 FORMAT Nonsense"), 404, 73)


def test_query_and_body_are_one_text(web: httpx.Client, table: str) -> None:
    web.post("/", params={"query": "SELECT"}, content="1").raise_for_status()
    web.post("/", content=f"CREATE TABLE {table} (n UInt64, s String) ORDER BY n").raise_for_status()
    for params, body in (
        ({"query": f"INSERT INTO {table} FORMAT CSV"}, '1,"a"\n'),
        ({}, f'INSERT INTO {table} FORMAT CSV\n2,"b"\n'),
        ({"query": f"INSERT INTO {table} (s, n) VALUES ('c', 3)"}, ""),
        ({"query": f"INSERT INTO {table} (s, n) VALUES ('d', 4),"}, "('e', 5)"),
        ({"query": f"INSERT INTO {table} FORMAT TSV 6\tf\n"}, ""),
        ({"query": "INSERT INTO {t:Identifier} FORMAT JSONEachRow", "param_t": table}, '{"n":7,"s":"{t}"}'),
    ):
        answer = web.post("/", params=params, content=body)
        assert answer.status_code == 200, answer.text
    assert web.post("/", content=f"SELECT n, s FROM {table} ORDER BY n FORMAT CSV").text == (
        '1,"a"\n2,"b"\n3,"c"\n4,"d"\n5,"e"\n6,"f"\n7,"{t}"\n'
    )


def test_parameters_and_settings_of_one_query(web: httpx.Client) -> None:
    params = {"param_s": "a\\tb'c", "param_n": "5", "max_threads": "3", "session_id": "x", "session_timeout": "60"}
    answer = web.post("/", params=params, content="SELECT {s:String}, {n:UInt8}, getSetting('max_threads')")
    assert answer.text == "a\\tb\\'c\t5\t3\n"
    assert web.post("/", content="SELECT getSetting('max_threads')").text != "3\n"
    assert_error(web.post("/", content="SELECT {s:String}"), 400, 456)
    assert_error(web.post("/", params={"no_such_setting": "1"}, content="SELECT 1"), 404, 115)
    assert_error(web.post("/", params={"max_threads": "many"}, content="SELECT 1"), 400, 27)
    assert_error(web.post("/", params={"a' = 1, b": "1"}, content="SELECT 1"), 400, 36)


def test_databases(web: httpx.Client, engine: EngineProcess) -> None:
    engine.query("CREATE DATABASE IF NOT EXISTS `an other`")
    try:
        assert web.post("/", params={"database": "an other"}, content="SELECT currentDatabase()").text == "an other\n"
        header = {"x-clickhouse-database": "an other"}
        assert web.post("/", headers=header, content="SELECT currentDatabase()").text == "an other\n"
    finally:
        engine.query("DROP DATABASE `an other`")
    assert_error(web.post("/", params={"database": "no_such"}, content="SELECT 1"), 404, 81)


def test_get_changes_nothing(web: httpx.Client, table: str) -> None:
    web.post("/", content=f"CREATE TABLE {table} (n UInt64) ORDER BY n").raise_for_status()
    for sql in (
        f"DROP TABLE {table}",
        f"INSERT INTO {table} VALUES (1)",
        f"INSERT INTO {table} SELECT 1",
        f"TRUNCATE TABLE {table}",
        "CREATE DATABASE x",
    ):
        assert_error(web.get("/", params={"query": sql}), 500, 164)
        assert_error(web.get("/", params={"query": sql, "readonly": "0"}), 500, 164)
    assert web.get("/", params={"query": f"SELECT count() FROM {table}", "max_threads": "1"}).text == "0\n"
    assert_error(web.put("/", content="SELECT 1"), 501, 48)


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT * FROM no_such_table", 404, 60),
        ("SELECT no_such_column", 404, 47),
        ("SELECT no_such_function()", 404, 46),
        ("SELECT * FROM no_such_database.t", 404, 81),
        ("SELECT toUInt8('x')", 400, 6),
        ("SELECT 1 + 'x'", 400, 43),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 400, 358),
        ("INSERT INTO t FROM INFILE '/etc/hostname' FORMAT TSV", 400, 358),
        # Nothing outside of the engine's own folder.
        ("SELECT * FROM file('/etc/hostname', 'LineAsString')", 403, 497),
        ("SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')", 403, 497),
        ("SELECT * FROM remote('127.0.0.1', 'system.one')", 403, 497),
        ("INSERT INTO FUNCTION file('/tmp/x', 'TSV', 'a Int8') VALUES (1)", 403, 497),
        ("CREATE TABLE k (a Int8) ENGINE = Kafka('localhost:9092', 'a', 'b', 'TSV')", 403, 497),
        ("CREATE TABLE k (a Int8) ENGINE = URL('http://127.0.0.1:9/', 'TSV')", 403, 497),
        ("CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(HTTP(url 'http://127.0.0.1:9/'))", 403, 497),
        ("CREATE USER u", 403, 497),
        ("SYSTEM SHUTDOWN", 403, 497),
        ("BACKUP DATABASE midstream TO File('/tmp/x')", 403, 497),
        ("BACKUP DATABASE midstream TO S3('http://127.0.0.1:9/b', 'a', 'b')", 403, 497),
        ("BACKUP DATABASE midstream TO Disk('default', 'x')", 400, 36),
        ("BACKUP DATABASE midstream TO Disk('backups', '../x')", 400, 36),
        ("RESTORE DATABASE midstream FROM File('/tmp/x')", 403, 497),
    ],
)
def test_errors(web: httpx.Client, sql: str, status: int, code: int) -> None:
    assert_error(web.post("/", params={"default_format": "TSV"}, content=sql or " "), status, code)


def test_a_query_that_is_too_long(web: httpx.Client) -> None:
    sql = "SELECT length('" + "x" * 300_000 + "')"
    assert_error(web.post("/", content=sql), 400, 62, "max_query_size")
    assert web.post("/", params={"max_query_size": "400000"}, content=sql).text == "300000\n"


@pytest.mark.parametrize(
    ("params", "headers"),
    [
        ({"user": "alice"}, {}),
        ({"password": "x"}, {}),
        ({}, {"x-clickhouse-user": "alice"}),
        ({}, {"x-clickhouse-key": "x"}),
        ({}, {"authorization": "Basic YWxpY2U6eA=="}),
        ({}, {"authorization": "Basic %%%"}),
        ({}, {"authorization": "Bearer token"}),
    ],
)
def test_there_is_one_user_without_a_password(
    web: httpx.Client, params: dict[str, str], headers: dict[str, str]
) -> None:
    assert_error(web.post("/", params=params, headers=headers, content="SELECT 1"), 403, 516)


def test_the_user_default_is_let_in(web: httpx.Client) -> None:
    for headers in ({"authorization": "Basic ZGVmYXVsdDo="}, {"x-clickhouse-user": "default", "x-clickhouse-key": ""}):
        assert web.post("/", headers=headers, content="SELECT 1").text == "1\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example:8123"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"host": "localhost:8123"}, 200),
    ],
)
def test_web_pages_of_other_origins_are_refused(web: httpx.Client, headers: dict[str, str], status: int) -> None:
    answer = web.post("/", headers=headers, content="SELECT 1")
    assert answer.status_code == status
    if status == 403:
        assert_error(answer, 403, 497)


@pytest.mark.parametrize(
    ("codec", "inflate"),
    [
        ("lz4", lz4.frame.decompress),
        ("zstd", zstd.decompress),
        ("gzip", gzip.decompress),
        ("deflate", zlib.decompress),
    ],
)
@pytest.mark.parametrize("rows", [2_000, 1_000_000])
def test_compressed_answers(engine: EngineProcess, codec: str, inflate, rows: int) -> None:  # type: ignore[no-untyped-def]
    with httpx.stream(
        "POST",
        engine.url,
        params={"enable_http_compression": "1"},
        headers={"accept-encoding": codec},
        content=f"SELECT number FROM numbers({rows})",
        timeout=60,
    ) as answer:
        assert answer.headers["content-encoding"] == codec
        body = b"".join(answer.iter_raw())
    assert inflate(body) == b"".join(b"%d\n" % number for number in range(rows))


def test_compression_is_the_clients_choice(engine: EngineProcess) -> None:
    for params, encoding in (
        ({"enable_http_compression": "0"}, "gzip"),
        ({}, "br, identity"),
        ({}, "gzip;q=0"),
    ):
        answer = httpx.post(
            engine.url, params=params, headers={"accept-encoding": encoding}, content="SELECT * FROM numbers(2000)"
        )
        assert "content-encoding" not in answer.headers


def test_what_is_not_spoken_is_said(web: httpx.Client) -> None:
    assert_error(web.post("/", params={"compress": "1"}, content="SELECT 1"), 501, 48, "Accept-Encoding")
    assert_error(web.post("/", params={"decompress": "1"}, content="SELECT 1"), 501, 48)
    assert_error(web.post("/", headers={"content-encoding": "br"}, content=b"x"), 400, 89)
    files = {"ext": ("ext", b"1\n")}
    assert_error(web.post("/", params={"query": "SELECT 1", "ext_structure": "n Int8"}, files=files), 501, 48)


@pytest.mark.parametrize(
    ("codec", "compress"),
    [("gzip", gzip.compress), ("zstd", zstd.compress), ("lz4", lz4.frame.compress), ("deflate", zlib.compress)],
)
def test_compressed_bodies_whole_and_cut(web: httpx.Client, table: str, codec: str, compress) -> None:  # type: ignore[no-untyped-def]
    web.post("/", content=f"CREATE TABLE {table} (n UInt64) ORDER BY n").raise_for_status()
    body = compress(b"".join(b"%d\n" % number for number in range(50_000)))
    params = {"query": f"INSERT INTO {table} FORMAT TSV"}
    headers = {"content-encoding": codec}
    for bad in (body[:-3], body[: len(body) // 2], b"nonsense" * 100, body + b"rest"):
        assert_error(web.post("/", params=params, headers=headers, content=bad), 400, 271)
    assert web.post("/", content=f"SELECT count() FROM {table}").text == "0\n"
    web.post("/", params=params, headers=headers, content=body).raise_for_status()
    assert web.post("/", content=f"SELECT count(), max(n) FROM {table}").text == "50000\t49999\n"
    sql = compress(b"SELECT 'compressed too'")
    assert web.post("/", headers=headers, content=sql).text == "compressed too\n"


@pytest.mark.parametrize("chunked", [False, True])
def test_an_aborted_upload_inserts_nothing(engine: EngineProcess, table: str, chunked: bool) -> None:
    engine.query(f"CREATE TABLE {table} (n UInt64) ORDER BY n")
    body = b"".join(b"%d\n" % number for number in range(1_500_000))  # more than the engine would write as one block
    target = f"/?query=INSERT+INTO+{table}+FORMAT+TSV"
    connection = socket.create_connection(("127.0.0.1", engine.port))
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if chunked:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n")
    else:
        connection.sendall(f"{head}Content-Length: {len(body) + 10}\r\n\r\n".encode() + body)
    time.sleep(0.3)
    connection.close()
    time.sleep(0.5)
    assert engine.query(f"SELECT count() FROM {table}") == "0\n"
    assert engine.query(f"INSERT INTO {table} FORMAT TSV\n".encode() + body) == ""
    assert engine.query(f"SELECT count() FROM {table}") == "1500000\n"


def test_a_connection_serves_request_after_request(engine: EngineProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=30)
    sock = None
    for body, status in (
        (b"SELECT 1", 200),
        (b"SELEC", 400),
        (b"SELECT 2", 200),
        (b"x" * 500_000, 400),
        (b"SELECT 3", 200),
    ):
        connection.request("POST", "/", body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        sock = sock or connection.sock
        assert connection.sock is sock
    connection.close()


def test_a_long_answer_is_streamed_in_flat_memory(engine: EngineProcess) -> None:
    process = psutil.Process(engine.process.pid)
    sql = "SELECT number, repeat('x', 1000) FROM numbers(3000000) FORMAT JSONEachRow"  # 3 GB
    with httpx.stream("POST", engine.url, content=sql, timeout=60, headers={"accept-encoding": "identity"}) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        pieces = answer.iter_raw(1 << 20)
        for _ in range(20):
            next(pieces)
        before = process.memory_info().rss
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > 600 << 20:
                break
        assert process.memory_info().rss - before < 150 << 20


def running(engine: EngineProcess, mark: str) -> int:
    sql = f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'"
    return int(engine.query(sql))


@pytest.mark.parametrize(
    ("mark", "sql"),
    [
        ("streams_on", "SELECT number, 'streams_on' FROM numbers(100000000000)"),
        ("counts_on", "SELECT count(), 'counts_on' FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"),
    ],
)
def test_a_client_that_leaves_stops_its_query(engine: EngineProcess, mark: str, sql: str) -> None:
    connection = socket.create_connection(("127.0.0.1", engine.port))
    connection.sendall(f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(sql)}\r\n\r\n{sql}".encode())
    deadline = time.monotonic() + 10
    while not running(engine, mark):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    connection.close()
    while running(engine, mark):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_long_queries_hold_up_neither_ping_nor_others(engine: EngineProcess) -> None:
    sql = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"
    params = {"max_execution_time": "5", "max_threads": "1"}

    def run(_: int) -> int:
        return engine.http.post("/", params=params, content=sql).status_code

    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(run, range(4))
        time.sleep(0.5)
        started = time.monotonic()
        assert engine.http.get("/ping").text == "Ok.\n"
        assert engine.query("SELECT 1") == "1\n"
        assert time.monotonic() - started < 3  # the long ones take 5, on a machine that others use too
        assert list(answers) == [408] * 4


def test_more_queries_than_run_and_wait_are_refused(start_engine) -> None:  # type: ignore[no-untyped-def]
    engine = start_engine(MIDSTREAM_ENGINE_THREADS="1", MIDSTREAM_ENGINE_QUEUE="1").wait_ready()

    def run(_: int) -> httpx.Response:
        return engine.http.post("/", content="SELECT sleep(1)")

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(run, range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
    for answer in answers:
        if answer.status_code == 503:
            assert_error(answer, 503, 202)
            assert answer.headers["retry-after"] == "1"
    assert engine.query("SELECT 1") == "1\n"


def test_a_client_that_does_not_read_holds_no_memory(engine: EngineProcess) -> None:
    process = psutil.Process(engine.process.pid)
    sql = "SELECT number, repeat('x', 1000), 'stalls' FROM numbers(100000000)"
    with contextlib.closing(socket.create_connection(("127.0.0.1", engine.port))) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(sql)}\r\n\r\n{sql}".encode())
        time.sleep(1)
        before = process.memory_info().rss
        time.sleep(2)
        assert process.memory_info().rss - before < 50 << 20
    deadline = time.monotonic() + 10
    while running(engine, "stalls"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
