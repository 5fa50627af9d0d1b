"""SQL sources, on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, create_engine, text

from midstream.dimensions import DimensionType
from midstream.sources import limits
from midstream.sources.reading import Source
from tests.support.postgres import create_database

from .reads import configure, failure, read, taken

TABLE = """
CREATE TABLE users (
  id {id} PRIMARY KEY, name TEXT, version BIGINT, changed TIMESTAMP, born DATE, price NUMERIC(10, 2),
  gone BOOLEAN, extra {json}, picture {bytes}
)"""
ROWS = [
    {"id": "a", "name": "Ann's :x %s", "version": 7, "changed": "2024-01-01 00:00:10.500", "born": "2001-02-03"},
    {"id": "b", "name": None, "version": 8, "changed": "2024-01-01 00:00:20", "born": None},
    {"id": "c", "name": "é", "version": 9, "changed": "2024-01-01 00:00:30", "born": None},
]


class Database:
    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.engine: Engine = create_engine(url)
        is_sqlite = url.startswith("sqlite")
        kinds = {"id": "TEXT", "json": "TEXT" if is_sqlite else "JSONB", "bytes": "BLOB" if is_sqlite else "BYTEA"}
        self.execute(TABLE.format(**kinds))
        for row in ROWS:
            self.execute(
                "INSERT INTO users (id, name, version, changed, born, price, gone, extra) "
                "VALUES (:id, :name, :version, :changed, :born, 1.10, false, :extra)",
                **row,
                extra='{"n": 12345678901234567890}',
            )

    def execute(self, statement: str, **parameters: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def source(self, query: str, more: str = "") -> Source:
        table = f"[user]\nkind = \"sql\"\nurl = '{self.url}'\nquery = '''{query}'''\n{more}"
        return configure(self.folder, table)[DimensionType.USER]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'users.db'}"
    if request.param == "postgresql":
        url = create_database(request.getfixturevalue("postgres_url"), uuid4().hex)
    made = Database(url, tmp_path)
    yield made
    made.engine.dispose()


@pytest.fixture
def postgres_database(postgres_url: str, tmp_path: Path) -> Iterator[Database]:
    made = Database(create_database(postgres_url, uuid4().hex), tmp_path)
    yield made
    made.engine.dispose()


def test_a_query(database: Database) -> None:
    source = database.source("SELECT id, name, version FROM users ORDER BY id", 'version_column = "version"')
    rows, refused = taken(reading := source.read())
    assert [(row.id, json.loads(row.attributes), row.version) for row in rows] == [
        ("a", {"name": "Ann's :x %s"}, 7),
        ("b", {"name": None}, 8),
        ("c", {"name": "é"}, 9),
    ]
    assert (refused, reading.whole, reading.watermark) == ([], True, "version:9")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, 'at 10:30 :name' AS text, 5 % 3 AS two FROM users ; ",
        "SELECT id, 'at 10:30 :name' AS text, 5 % 3 AS two FROM users -- all of them",
        "WITH u AS (SELECT * FROM users) SELECT id, 'at 10:30 :name' AS text, CAST(2 AS int) AS two FROM u",
    ],
)
def test_any_select_is_taken_as_it_is(database: Database, query: str) -> None:
    expected = {"text": "at 10:30 :name", "two": 2}
    assert read(database.source(query)) == dict.fromkeys("abc", expected)
    assert read(database.source(query), ["b"]) == {"b": expected}


def test_columns_of_many_types(database: Database) -> None:
    database.execute("UPDATE users SET picture = :picture WHERE id = 'a'", picture=b"\x00\xff")
    source = database.source("SELECT * FROM users WHERE id = 'a'", 'json_columns = ["extra"]')
    [row] = taken(source.read())[0]
    found = json.loads(row.attributes)
    assert '"price":1.1' in row.attributes
    assert '"extra":{"n":12345678901234567890}' in row.attributes
    assert base64.b64decode(found["picture"]) == b"\x00\xff"
    assert found["born"] == "2001-02-03"
    assert found["gone"] in (False, 0)
    assert found["changed"].replace(" ", "T") in ("2024-01-01T00:00:10.500", "2024-01-01T00:00:10.500000")


def test_columns_of_postgresql(postgres_database: Database) -> None:
    query = """SELECT 'x' AS id, 1.50::numeric AS n, 'NaN'::numeric AS nan, 'Infinity'::float8 AS inf,
        '2024-01-01 12:00+02'::timestamptz AS at, '12:30'::time AS noon, interval '1 day' AS day,
        'ecb84056-5d64-47d0-babf-1ebe44b5f12b'::uuid AS u, ARRAY[1, 2] AS list, '1.2.3.4'::inet AS address,
        '{"a": 1.10}'::json AS j, int4range(1, 5) AS span, true AS yes"""
    [row] = taken(postgres_database.source(query).read())[0]
    assert '"n":1.50' in row.attributes
    assert '"j":{"a":1.10}' in row.attributes
    assert json.loads(row.attributes) == {
        "n": 1.5,
        "nan": None,
        "inf": None,
        "at": "2024-01-01T10:00:00Z",
        "noon": "12:30:00",
        "day": "P1D",
        "u": "ecb84056-5d64-47d0-babf-1ebe44b5f12b",
        "list": [1, 2],
        "address": "1.2.3.4",
        "j": {"a": 1.1},
        "span": "[1, 5)",
        "yes": True,
    }


def test_rows_that_cannot_be_taken_cost_only_themselves(database: Database) -> None:
    query = """SELECT 'a' AS id, 1 AS v, '{}' AS j UNION ALL SELECT NULL, 2, '{}' UNION ALL SELECT 'c', -1, '{}'
        UNION ALL SELECT 'd', NULL, '{}' UNION ALL SELECT 'e', 5, '{"x":' UNION ALL SELECT 'f', 6, '{"x":1,"x":2}'
        UNION ALL SELECT '', 7, '{}'"""
    rows, refused = taken(database.source(query, 'version_column = "v"\njson_columns = ["j"]').read())
    assert [row.id for row in rows] == ["a"]
    assert [(one.place, one.code, one.id) for one in refused] == [
        ("row 2", "INVALID_ROW", ""),
        ("row 3", "INVALID_VERSION", "c"),
        ("row 4", "INVALID_VERSION", "d"),
        ("row 5", "INVALID_JSON", "e"),
        ("row 6", "INVALID_JSON", "f"),
        ("row 7", "INVALID_ID", ""),
    ]


def test_deleted_rows_are_tombstones(database: Database) -> None:
    database.execute("UPDATE users SET gone = true WHERE id = 'b'")
    rows, _ = taken(database.source("SELECT * FROM users ORDER BY id", 'deleted_column = "gone"').read())
    assert [(row.id, row.deleted, row.attributes == "{}") for row in rows] == [
        ("a", False, False),
        ("b", True, True),
        ("c", False, False),
    ]


class TestIncremental:
    def test_by_version(self, database: Database) -> None:
        source = database.source("SELECT id, version FROM users", 'version_column = "version"')
        rows, _ = taken(reading := source.read(since="version:8"))
        assert [row.id for row in rows] == ["c"]
        assert (reading.whole, reading.watermark) == (False, "version:9")

    @pytest.mark.parametrize("overlap_ms", [0, 15_000])
    def test_by_time(self, database: Database, overlap_ms: int) -> None:
        more = f'updated_at_column = "changed"\noverlap_ms = {overlap_ms}'
        source = database.source("SELECT id, changed FROM users", more)
        rows, _ = taken(first := source.read())
        assert {row.id: row.version for row in rows} == {"a": 1704067210500, "b": 1704067220000, "c": 1704067230000}
        assert first.watermark == "ms:1704067230000"
        database.execute("INSERT INTO users (id, changed) VALUES ('d', '2024-01-01 00:00:31')")
        rows, _ = taken(second := source.read(since=first.watermark))
        assert {row.id for row in rows} - {"c"} == ({"d"} if overlap_ms == 0 else {"b", "d"})
        assert (second.whole, second.watermark) == (False, "ms:1704067231000")

    @pytest.mark.parametrize(("unit", "factor"), [("epoch_s", 1), ("epoch_ms", 1000)])
    def test_by_a_number(self, database: Database, unit: str, factor: int) -> None:
        more = f'updated_at_column = "at"\nupdated_at_unit = "{unit}"\noverlap_ms = 0'
        source = database.source(f"SELECT id, version * {factor} AS at FROM users", more)
        rows, _ = taken(source.read(since="ms:8000"))
        assert {row.id: row.version for row in rows} == {"c": 9000}

    def test_with_a_time_zone(self, postgres_database: Database) -> None:
        query = "SELECT id, changed::timestamptz AS at FROM users"
        source = postgres_database.source(query, 'updated_at_column = "at"\noverlap_ms = 0')
        rows, _ = taken(source.read(since="ms:1704067220000"))
        assert {row.id: row.version for row in rows} == {"c": 1704067230000}


class TestByIds:
    def test_in_queries_of_some(self, database: Database) -> None:
        source = database.source("SELECT id, name FROM users", "ids_per_query = 2")
        assert set(read(source, ["a", "nobody", "c", "d'e", "a\0", "\ud800"])) == {"a", "c"}
        assert read(source, []) == {}

    def test_integers(self, database: Database) -> None:
        source = database.source("SELECT version, id AS name FROM users", 'id_column = "version"\nid_type = "integer"')
        assert read(source, ["8", "x", "09", "9" * 30]) == {"8": {"name": "b"}}

    def test_uuids(self, postgres_database: Database) -> None:
        one = str(UUID(int=5))
        source = postgres_database.source(f"SELECT '{one}'::uuid AS id, 1 AS x", 'id_type = "uuid"')
        assert read(source, [one, "x", str(UUID(int=6))]) == {one: {"x": 1}}


class TestFailures:
    @pytest.mark.parametrize(
        ("query", "code", "words"),
        [
            ("SELECT * FROM nothing", "SOURCE_REFUSED", "nothing"),
            ("SELECT id FROM users WHERE", "SOURCE_REFUSED", "the query: "),
            ("DELETE FROM users RETURNING id", "SOURCE_REFUSED", "the query: "),
            ("SELECT id AS x FROM users", "SOURCE_UNREADABLE", "no column id; it gives x"),
        ],
    )
    def test_a_query_that_cannot_be(self, database: Database, query: str, code: str, words: str) -> None:
        found, message = failure(database.source(query))
        assert found.startswith(code)
        assert words in message
        assert "SELECT" not in message

    def test_a_query_with_a_column_twice(self, postgres_database: Database) -> None:
        source = postgres_database.source("SELECT id, name AS n, version AS n FROM users")
        assert failure(source) == ("SOURCE_UNREADABLE", "the query gives more than one column n")

    def test_a_query_cannot_write(self, postgres_database: Database) -> None:
        postgres_database.execute(
            "CREATE FUNCTION add_one() RETURNS text LANGUAGE sql AS "
            "$$ INSERT INTO users (id) VALUES ('new') RETURNING id $$"
        )
        code, message = failure(postgres_database.source("SELECT add_one() AS id"))
        assert (code, "read-only transaction" in message) == ("SOURCE_REFUSED", True)

    def test_a_slow_query_is_ended(self, database: Database) -> None:
        slow = "SELECT CAST(pg_sleep(20) AS text) AS id"
        if database.url.startswith("sqlite"):
            slow = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT max(id) AS id FROM n"
        began = time.monotonic()
        code, message = failure(database.source(slow, "statement_timeout_ms = 300"))
        assert (code, "statement_timeout_ms, which is 300" in message) == ("SOURCE_TIMEOUT", True)
        assert time.monotonic() - began < 10

    def test_a_server_that_stops_answering_is_left(
        self, postgres_database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "_GRACE_S", 0.5)
        source = postgres_database.source(
            "SELECT pg_backend_pid() + 0 * n AS id FROM generate_series(1, 100000) AS n", "statement_timeout_ms = 1000"
        )
        blocks = iter(source.read())
        process = int(next(blocks)[0].id)  # type: ignore[union-attr, arg-type]
        os.kill(process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(Exception, match="statement_timeout_ms, which is 1000"):
                list(blocks)
            assert 1 <= time.monotonic() - began < 10
        finally:
            os.kill(process, signal.SIGCONT)

    def test_a_connection_that_is_lost_half_way(self, postgres_database: Database) -> None:
        source = postgres_database.source("SELECT pg_backend_pid() + 0 * n AS id FROM generate_series(1, 100000) AS n")
        blocks = iter(source.read())
        process = int(next(blocks)[0].id)  # type: ignore[union-attr, arg-type]
        postgres_database.execute("SELECT pg_terminate_backend(:process)", process=process)
        with pytest.raises(Exception, match="the query:") as raised:
            list(blocks)
        assert raised.value.code == "SOURCE_CUT"  # type: ignore[attr-defined]

    def test_nobody_there(self, postgres_url: str, tmp_path: Path) -> None:
        start = postgres_url.replace("midstream@", "midstream:s3cret@")
        text_ = f'[user]\nkind = "sql"\nurl = "{start}no_such_database"\nquery = "SELECT 1 AS id"'
        code, message = failure(configure(tmp_path, text_)[DimensionType.USER])
        assert (code, "no_such_database" in message, "s3cret" in message) == ("SOURCE_UNAVAILABLE", True, False)

    def test_a_sqlite_file_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        path = tmp_path / "none.db"
        text_ = f'[user]\nkind = "sql"\nurl = "sqlite:///{path}"\nquery = "SELECT 1 AS id"'
        assert failure(configure(tmp_path, text_)[DimensionType.USER]) == (
            "SOURCE_UNAVAILABLE",
            f"there is no file {path}",
        )
        assert not path.exists()

    @pytest.mark.parametrize(
        ("url", "words"), [("nonsense", "user.url cannot be used"), ("oracle://h/d", "No module named")]
    )
    def test_a_url_that_is_none(self, tmp_path: Path, url: str, words: str) -> None:
        text_ = f'[user]\nkind = "sql"\nurl = "{url}"\nquery = "SELECT 1 AS id"'
        code, message = failure(configure(tmp_path, text_)[DimensionType.USER])
        assert (code, words in message) == ("SOURCE_CONFIG", True)


def test_many_rows_come_some_at_a_time(postgres_database: Database) -> None:
    source = postgres_database.source("SELECT n AS id, repeat('x', 1000) AS x FROM generate_series(1, 20000) AS n")
    sizes = [len(block) for block in source.read()]
    assert (sum(sizes), max(sizes)) == (20_000, 500)


def test_a_read_that_is_left_half_way_lets_go_of_its_connection(postgres_database: Database) -> None:
    reading = postgres_database.source("SELECT n AS id FROM generate_series(1, 20000) AS n").read()
    next(iter(reading))
    reading.close()
    with postgres_database.engine.connect() as connection:
        others = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        deadline = time.monotonic() + 10
        while connection.execute(others).scalar_one() > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name == "source-watchdog"]
