"""clickhouse-connect's synchronous client against the local engine."""

from __future__ import annotations

import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import lz4.frame
import numpy as np
import pyarrow as pa
import pytest
from backports import zstd
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from .conftest import EngineProcess


def arrow_bytes(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_the_client_learns_the_server(client: Client) -> None:
    assert client.server_version.startswith("26.")
    assert str(client.server_tz) == "UTC"
    assert client.ping()
    assert client.command("SELECT currentDatabase()") == "midstream"


def test_without_a_database_it_is_midstream(engine: EngineProcess) -> None:
    import clickhouse_connect

    with clickhouse_connect.get_client(host="127.0.0.1", port=engine.port) as client:
        assert client.command("SELECT currentDatabase()") == "midstream"


def test_query_gives_typed_rows_and_a_summary(client: Client) -> None:
    result = client.query("SELECT number, toString(number) AS s, toDateTime64(0, 3, 'UTC') FROM numbers(3)")
    assert result.column_names[:2] == ("number", "s")
    assert result.result_rows[2] == (2, "2", datetime.fromtimestamp(0, UTC).replace(tzinfo=None)) or result.result_rows[
        2
    ][:2] == (2, "2")
    assert result.summary["read_rows"] == "3"
    assert result.query_id


def test_an_empty_result_and_a_columns_only_query(client: Client) -> None:
    assert client.query("SELECT number FROM numbers(3) WHERE number > 5").result_rows == []
    assert client.query("SELECT number AS n FROM numbers(3) LIMIT 0").column_names == ("n",)


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_compression_of_answers_and_inserts(engine: EngineProcess, table: str, compress: bool | str) -> None:
    with engine.client(compress=compress) as client:
        client.command(f"CREATE TABLE {table} (n UInt64, s String) ORDER BY n")
        rows = [[number, "text" * 50] for number in range(20_000)]
        assert client.insert(table, rows, column_names=["n", "s"]).written_rows == 20_000
        result = client.query(f"SELECT n, s FROM {table} ORDER BY n")
        assert result.result_rows == [tuple(row) for row in rows]
        assert client.raw_query(f"SELECT count() FROM {table}") == b"20000\n"


def test_rows_in_blocks_of_a_long_answer(client: Client) -> None:
    total = count = 0
    with client.query_row_block_stream("SELECT number, repeat('x', 20) FROM numbers(1000000)") as stream:
        for block in stream:
            count += len(block)
            total += sum(row[0] for row in block)
    assert (count, total) == (1_000_000, 999_999 * 500_000)


def test_dataframes_and_arrow(client: Client) -> None:
    frame = client.query_df("SELECT number AS n, toString(number) AS s FROM numbers(1000)")
    assert frame["n"].sum() == 499_500
    table = client.query_arrow("SELECT number AS n, toString(number) AS s FROM numbers(300000)")
    assert table.num_rows == 300_000
    assert np.asarray(table["n"]).sum() == 299_999 * 150_000
    with client.query_arrow_stream("SELECT number AS n FROM numbers(300000)") as stream:
        assert sum(part.num_rows for part in stream) == 300_000


def test_raw_query_and_raw_stream(client: Client) -> None:
    assert client.raw_query("SELECT 1 AS a", fmt="JSONEachRow") == b'{"a":1}\n'
    assert json.loads(client.raw_query("SELECT 1 AS a", fmt="JSON"))["data"] == [{"a": 1}]
    with client.raw_stream("SELECT number FROM numbers(200000)", fmt="RowBinary") as stream:
        data = stream.read()
    assert np.frombuffer(data, "<u8").sum() == 199_999 * 100_000


def test_commands(client: Client, table: str) -> None:
    client.command(f"CREATE TABLE {table} (n UInt64) ORDER BY n")
    assert client.command(f"EXISTS TABLE {table}") == 1
    client.command(f"INSERT INTO {table} VALUES (1), (1 + 1)")
    client.command(f"INSERT INTO {table} SELECT 3")
    assert client.command(f"SELECT sum(n) FROM {table}") == 6
    client.command(f"TRUNCATE TABLE {table}")
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_parameters_are_bound_by_the_server_and_by_the_client(client: Client) -> None:
    values = {
        "a": 5,
        "s": "it's \\ a\ttab\nline 'x' é",
        "l": ["a'b", "c"],
        "d": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    result = client.query(
        "SELECT {a:UInt32} + 1, {s:String}, {l:Array(String)}, toUnixTimestamp({d:DateTime64(3, 'UTC')})",
        parameters=values,
    )
    assert result.result_rows == [(6, values["s"], values["l"], 1767323045)]
    assert client.query("SELECT %(s)s, %(a)s", parameters=values).result_rows == [(values["s"], 5)]
    many = [f"id-{number}" for number in range(20_000)]  # too long for a URL: the client sends a form
    settings = {"max_query_size": 1 << 20}
    assert client.query("SELECT length({l:Array(String)})", parameters={"l": many}, settings=settings).first_row == (
        20_000,
    )


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_arrow_inserts_keep_every_type(client: Client, table: str, compression: str | None) -> None:
    client.command(
        f"CREATE TABLE {table} (t DateTime64(3, 'UTC'), h UInt64, l Array(String), n Nullable(Int64), "
        "m Nullable(DateTime64(3, 'UTC')), c LowCardinality(String), b Bool, f Nullable(Float64)) ORDER BY h"
    )
    rows = pa.table(
        {
            "t": pa.array([1_767_323_045_123, -1_000], pa.timestamp("ms", tz="UTC")),
            "h": pa.array([2**64 - 1, 0], pa.uint64()),
            "l": pa.array([["a", "é"], []], pa.list_(pa.string())),
            "n": pa.array([None, -5], pa.int64()),
            "m": pa.array([None, 1], pa.timestamp("ms", tz="UTC")),
            "c": pa.array(["x", "x"]),
            "b": pa.array([True, False]),
            "f": pa.array([None, 1.5]),
        }
    )
    summary = client.raw_insert(table, rows.column_names, arrow_bytes(rows, compression), fmt="ArrowStream")
    assert summary.written_rows == 2
    answer = client.raw_query(f"SELECT * FROM {table} ORDER BY h", fmt="TabSeparated").decode().splitlines()
    assert answer == [
        "1969-12-31 23:59:59.000\t0\t[]\t-5\t1970-01-01 00:00:00.001\tx\tfalse\t1.5",
        "2026-01-02 03:04:05.123\t18446744073709551615\t['a','é']\t\\N\t\\N\tx\ttrue\t\\N",
    ]


@pytest.mark.parametrize(
    ("compression", "compress"),
    [
        (None, bytes),
        ("gzip", gzip.compress),
        ("zstd", zstd.compress),
        ("lz4", lz4.frame.compress),
    ],
)
def test_raw_inserts_with_compressed_bodies(client: Client, table: str, compression: str | None, compress) -> None:  # type: ignore[no-untyped-def]
    client.command(f"CREATE TABLE {table} (n UInt64, s String) ORDER BY n")
    lines = b"".join(b'{"n": %d, "s": "%d"}\n' % (number, number) for number in range(5_000))
    body = compress(lines[:50_000]) + compress(lines[50_000:])  # frames may follow one another
    client.raw_insert(table, ["n", "s"], body, fmt="JSONEachRow", compression=compression)
    rows = b"".join(number.to_bytes(8, "little") + b"\x01x" for number in range(5_000, 6_000))
    client.raw_insert(table, ["n", "s"], compress(rows), fmt="RowBinary", compression=compression)
    assert client.query(f"SELECT count(), sum(n) FROM {table}").result_rows == [(6_000, 5_999 * 3_000)]


def test_a_generator_as_body_is_one_insert(client: Client, table: str) -> None:
    client.command(f"CREATE TABLE {table} (n UInt64) ORDER BY n")
    client.raw_insert(table, ["n"], (b"%d\n" % number for number in range(1_000)), fmt="TSV")
    parts = client.query(
        "SELECT count() FROM system.parts WHERE table = {t:String} AND level = 0", parameters={"t": table}
    )
    assert parts.first_row == (1,)
    assert client.command(f"SELECT count() FROM {table}") == 1_000


def test_a_token_makes_an_insert_happen_once(client: Client, table: str) -> None:
    client.command(f"CREATE TABLE {table} (n UInt64) ORDER BY n SETTINGS non_replicated_deduplication_window = 100")
    for token, value in (("a'1", 1), ("a'1", 1), ("a'1", 2), ("b", 1), ("12345", 7), ("12345", 7)):
        client.raw_insert(
            table, ["n"], arrow_bytes(pa.table({"n": [value]})), {"insert_deduplication_token": token}, "ArrowStream"
        )
    assert client.query(f"SELECT n FROM {table} ORDER BY n").result_rows == [(1,), (1,), (7,)]


def test_a_token_over_two_months_is_deduplicated_in_each_partition(client: Client, table: str) -> None:
    client.command(
        f"CREATE TABLE {table} (t DateTime64(3, 'UTC'), n UInt64) PARTITION BY toYYYYMM(t) ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    rows = pa.table({"t": pa.array([1_767_225_599_999, 1_767_225_600_000], pa.timestamp("ms", tz="UTC")), "n": [1, 2]})
    for part in (rows.slice(0, 1), rows, rows):  # the first as if the other partition's part had been lost
        client.raw_insert(table, ["t", "n"], arrow_bytes(part), {"insert_deduplication_token": "token"}, "ArrowStream")
    assert client.query(f"SELECT n FROM {table} ORDER BY n").result_rows == [(1,), (2,)]


def test_errors_have_clickhouses_code_and_name(client: Client, table: str) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as caught:
        client.query("SELECT * FROM no_such_table")
    assert caught.value.code == 60
    with pytest.raises(DatabaseError, match="SYNTAX_ERROR"):
        client.command("SELEC 1")
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        client.raw_insert("no_such_table", ["n"], b"1\n", fmt="TSV")
    client.command(f"CREATE TABLE {table} (n UInt64) ORDER BY n")
    with pytest.raises(DatabaseError, match="CANNOT_PARSE"):
        client.raw_insert(table, ["n"], b"1\n2\nx\n", fmt="TSV")
    with pytest.raises(DatabaseError):
        client.raw_insert(table, ["n"], b"not arrow", fmt="ArrowStream")
    assert client.command(f"SELECT count() FROM {table}") == 0


@pytest.mark.parametrize("compress", [False, "lz4"])
def test_an_error_in_the_middle_of_an_answer_is_an_error(engine: EngineProcess, compress: bool | str) -> None:
    sql = "SELECT number, repeat('x', 100), throwIf(number = 2000000, 'too far') FROM numbers(3000000)"
    with engine.client(compress=compress) as client:
        with pytest.raises((StreamFailureError, DatabaseError), match="too far"):
            _ = client.query(sql).result_rows
        with (
            pytest.raises((StreamFailureError, DatabaseError), match="too far"),
            client.query_row_block_stream(sql) as stream,
        ):
            for _ in stream:
                pass
        assert client.command("SELECT 1") == 1


def test_settings_last_for_one_query(client: Client) -> None:
    sql = "SELECT getSetting('max_threads')"
    assert client.query(sql, settings={"max_threads": 3}).first_row == (3,)
    assert client.query(sql).first_row != (3,)
    with pytest.raises(DatabaseError) as caught:
        client.query(
            "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))",
            settings={"max_execution_time": 0.2},
        )
    assert caught.value.code == 159


def test_threads_share_a_client(client: Client) -> None:
    def ask(number: int) -> int:
        return int(client.query("SELECT {n:UInt32} * 2", parameters={"n": number}).first_row[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [number * 2 for number in range(200)]


def test_a_projection_is_written_by_inserts_and_used_by_look_ups(client: Client, table: str) -> None:
    client.command(
        f"CREATE TABLE {table} (channel String, mid String, mid_hash UInt64, raw String, "
        "PROJECTION by_mid (SELECT mid_hash, mid ORDER BY mid_hash)) ORDER BY channel"
    )
    client.command(
        f"INSERT INTO {table} SELECT 'c', toString(number), sipHash64(number), repeat('x', 100) FROM numbers(200000)"
    )
    sql = f"SELECT mid FROM {table} WHERE mid_hash IN (sipHash64(toUInt64(7)), sipHash64(toUInt64(8))) ORDER BY mid"
    assert client.query(sql).result_rows == [("7",), ("8",)]
    plan = client.query(f"EXPLAIN projections = 1 {sql}").result_rows
    assert any("by_mid" in line for (line,) in plan), plan


def test_a_view_over_final_with_settings(client: Client, table: str) -> None:
    client.command(
        f"CREATE TABLE {table} (t DateTime64(3, 'UTC'), id UInt64, v UInt64) ENGINE = ReplacingMergeTree(v) "
        "PARTITION BY toYYYYMM(t) ORDER BY id"
    )
    client.command(
        f"CREATE VIEW {table}_view AS SELECT * FROM {table} FINAL "
        "SETTINGS do_not_merge_across_partitions_select_final = 1"
    )
    try:
        for version in (1, 2):
            client.command(f"INSERT INTO {table} VALUES ('2026-01-01', 1, {version}), ('2026-02-01', 1, {version})")
        # One row a partition: the setting holds inside of the view.
        assert client.query(f"SELECT v FROM {table}_view").result_rows == [(2,), (2,)]
    finally:
        client.command(f"DROP VIEW {table}_view")


def test_an_idle_connection_serves_again(client: Client) -> None:
    assert client.command("SELECT 1") == 1
    time.sleep(0.5)
    assert client.command("SELECT 2") == 2
