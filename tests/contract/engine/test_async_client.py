"""clickhouse-connect's asynchronous client against the local engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from .conftest import EngineProcess
from .test_client import arrow_bytes


@pytest.fixture
async def client(engine: EngineProcess) -> AsyncIterator[AsyncClient]:
    client = await clickhouse_connect.get_async_client(
        host="127.0.0.1", port=engine.port, database="midstream", autogenerate_session_id=False
    )
    yield client
    await client.close()


async def test_queries_and_inserts_at_once(client: AsyncClient, table: str) -> None:
    await client.command(
        f"CREATE TABLE {table} (n UInt64) ORDER BY n SETTINGS non_replicated_deduplication_window = 1000"
    )

    async def insert(number: int) -> None:
        body = arrow_bytes(pa.table({"n": pa.array([number] * 10, pa.uint64())}), "zstd")
        for _ in range(2):  # the second as if the first one's answer had been lost
            await client.raw_insert(
                table, ["n"], body, {"insert_deduplication_token": f"token-{number}"}, "ArrowStream"
            )

    async def ask(number: int) -> int:
        result = await client.query("SELECT {n:UInt32} + 1", parameters={"n": number})
        return int(result.first_row[0])

    answers = await asyncio.gather(*(ask(number) for number in range(20)), *(insert(number) for number in range(12)))
    assert list(answers[:20]) == list(range(1, 21))
    rows = (await client.query(f"SELECT count(), uniqExact(n), sum(n) FROM {table}")).first_row
    assert rows == (120, 12, 660)


async def test_more_at_once_than_may_run_or_wait_is_refused_and_the_rest_is_right(client: AsyncClient) -> None:
    results = await asyncio.gather(
        *(client.raw_query("SELECT sleep(0.3)", settings={"max_threads": 1}) for _ in range(70)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, DatabaseError)]
    assert all(error.code == 202 for error in refused)
    assert [result for result in results if not isinstance(result, DatabaseError)] == [b"0\n"] * (70 - len(refused))


async def test_streams_and_frames(client: AsyncClient) -> None:
    count = 0
    async with await client.query_row_block_stream("SELECT number, repeat('x', 30) FROM numbers(300000)") as stream:
        async for block in stream:
            count += len(block)
    assert count == 300_000
    assert (await client.query_df("SELECT number AS n FROM numbers(10)"))["n"].sum() == 45
    assert (await client.query_arrow("SELECT number AS n FROM numbers(10)")).num_rows == 10
    async with await client.raw_stream("SELECT number FROM numbers(100000)", fmt="TSV") as raw:
        size = 0
        async for piece in raw:
            size += len(piece)
    assert size == 588_890


async def test_native_inserts(client: AsyncClient, table: str) -> None:
    await client.command(f"CREATE TABLE {table} (n UInt64, l Array(String)) ORDER BY n")
    await client.insert(table, [[1, ["a"]], [2, []]], column_names=["n", "l"])
    await client.insert(
        table,
        [[3, 4], [["b"], ["c"]]],
        column_names=["n", "l"],
        column_oriented=True,
        column_type_names=["UInt64", "Array(String)"],
    )
    assert (await client.query(f"SELECT count(), sum(length(l)) FROM {table}")).first_row == (4, 3)


async def test_errors(client: AsyncClient) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as caught:
        await client.query("SELECT * FROM no_such_table")
    assert caught.value.code == 60
    with pytest.raises(Exception, match=r"too far|connection closed by server"):
        await client.query("SELECT repeat('x', 200), throwIf(number = 2000000, 'too far') FROM numbers(3000000)")
