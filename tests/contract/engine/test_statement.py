"""Reading a statement: its kind, its format, where its data begins, and what is refused."""

from __future__ import annotations

import pytest

from deploy.local.engine.errors import QueryError
from deploy.local.engine.statement import Kind, parse

PATH = "/dev/fd/9"
INTO = f"\nINTO OUTFILE '{PATH}' APPEND "


@pytest.mark.parametrize(
    ("sql", "into", "name"),
    [
        ("SELECT 1", "SELECT 1" + INTO + "FORMAT TSV ", "TSV"),
        ("select 1 format JSON", "select 1 " + INTO + "format JSON", "JSON"),
        ("SELECT 1 ;", "SELECT 1 " + INTO + "FORMAT TSV ", "TSV"),
        ("SELECT 1; -- done", "SELECT 1" + INTO + "FORMAT TSV ", "TSV"),
        ("SELECT 1 -- FORMAT CSV", "SELECT 1 -- FORMAT CSV" + INTO + "FORMAT TSV ", "TSV"),
        (
            "SELECT 1 FORMAT CSV SETTINGS max_threads = 1",
            "SELECT 1 " + INTO + "FORMAT CSV SETTINGS max_threads = 1",
            "CSV",
        ),
        ("SELECT 1 SETTINGS a=1 FORMAT CSV", "SELECT 1 SETTINGS a=1 " + INTO + "FORMAT CSV", "CSV"),
        ("SELECT 1 SETTINGS a=1", "SELECT 1 SETTINGS a=1" + INTO + "FORMAT TSV ", "TSV"),
        ("SHOW TABLES SETTINGS a = 1", "SHOW TABLES " + INTO + "FORMAT TSV SETTINGS a = 1", "TSV"),
        ("SHOW SETTINGS LIKE 'x'", "SHOW SETTINGS LIKE 'x'" + INTO + "FORMAT TSV ", "TSV"),
        ("SELECT ' FORMAT CSV'", "SELECT ' FORMAT CSV'" + INTO + "FORMAT TSV ", "TSV"),
        ("SELECT 'it''s \\' FORMAT CSV'", "SELECT 'it''s \\' FORMAT CSV'" + INTO + "FORMAT TSV ", "TSV"),
        ("SELECT $$ ; FORMAT CSV$$", "SELECT $$ ; FORMAT CSV$$" + INTO + "FORMAT TSV ", "TSV"),
        ('SELECT 1 AS "x FORMAT CSV"', 'SELECT 1 AS "x FORMAT CSV"' + INTO + "FORMAT TSV ", "TSV"),
        ("SELECT format('{}', 1)", "SELECT format('{}', 1)" + INTO + "FORMAT TSV ", "TSV"),
        ("SELECT 1 AS format", "SELECT 1 AS format" + INTO + "FORMAT TSV ", "TSV"),
        (
            "SELECT * FROM (SELECT 1 FORMAT CSV)",
            "SELECT * FROM (SELECT 1 FORMAT CSV)" + INTO + "FORMAT TSV ",
            "TSV",
        ),
        ("/* a */ (SELECT 1) UNION ALL (SELECT 2)", None, "TSV"),
        ("-- first\n#! second\nWITH x AS (SELECT 1) SELECT * FROM x", None, "TSV"),
        ("EXPLAIN SELECT 1", None, "TSV"),
        ("DESCRIBE TABLE t", None, "TSV"),
        ("EXISTS TABLE t", None, "TSV"),
    ],
)
def test_rows_are_streamed_in_the_format_asked_for(sql: str, into: str | None, name: str) -> None:
    statement = parse(sql.encode(), "TSV")
    assert statement.kind is Kind.SELECT
    assert statement.format == name
    if into is not None:
        assert statement.into(PATH).decode() == into


@pytest.mark.parametrize(
    ("text", "sql", "name", "data"),
    [
        ("INSERT INTO t FORMAT CSV\n1,2\n", "INSERT INTO t ", "CSV", "1,2\n"),
        ("INSERT INTO t FORMAT CSV\r\n1,2\n", "INSERT INTO t ", "CSV", "1,2\n"),
        ("INSERT INTO t FORMAT CSV 1,2\n", "INSERT INTO t ", "CSV", "1,2\n"),
        ("INSERT INTO t FORMAT CSV;\n1\n", "INSERT INTO t ", "CSV", "1\n"),
        ("INSERT INTO t FORMAT TSV\n\n\n", "INSERT INTO t ", "TSV", "\n\n"),
        ("INSERT INTO t FORMAT CSV", "INSERT INTO t ", "CSV", ""),
        ("insert into a.b (x, `format`, values) format CSV\n'", "insert into a.b (x, `format`, values) ", "CSV", "'"),
        ("INSERT INTO t SETTINGS a='FORMAT x' FORMAT CSV\n1", "INSERT INTO t SETTINGS a='FORMAT x' ", "CSV", "1"),
        ("INSERT INTO t (a) VALUES (1), ('; x')", "INSERT INTO t (a) ", "Values", " (1), ('; x')"),
        ("INSERT INTO values FORMAT CSV\n1", "INSERT INTO values ", "CSV", "1"),
        ("INSERT INTO db.format VALUES (1)", "INSERT INTO db.format ", "Values", " (1)"),
        ("INSERT INTO TABLE `a b` VALUES (1)", "INSERT INTO TABLE `a b` ", "Values", " (1)"),
        ("INSERT INTO {t:Identifier} FORMAT CSV\n1", "INSERT INTO {t:Identifier} ", "CSV", "1"),
        ("INSERT INTO FUNCTION null('x Int8') FORMAT CSV\n1", "INSERT INTO FUNCTION null('x Int8') ", "CSV", "1"),
        ("/* FORMAT X */ INSERT INTO t FORMAT CSV\n1", "/* FORMAT X */ INSERT INTO t ", "CSV", "1"),
    ],
)
def test_the_data_of_an_insert_begins_where_clickhouse_says(text: str, sql: str, name: str, data: str) -> None:
    statement = parse(text.encode(), "TSV")
    assert (statement.kind, statement.sql.decode(), statement.format) == (Kind.INSERT, sql, name)
    assert text[statement.data_start :] == data


def test_binary_data_behind_an_insert_is_not_looked_at() -> None:
    data = bytes(range(256)) + b"; DROP TABLE t; '"
    text = b"INSERT INTO t FORMAT Native\n" + data
    assert text[parse(text, "TSV").data_start :] == data


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT 1",
        "INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "CREATE TABLE t (a Int8) ORDER BY a",
        "ALTER TABLE t DELETE WHERE 1",
        "KILL QUERY WHERE 1",
        "EXPLAIN INSERT INTO t SELECT 1",
        "nonsense",
    ],
)
def test_everything_else_is_a_command(sql: str) -> None:
    statement = parse(sql.encode(), "TSV")
    assert (statement.kind, statement.sql.decode()) == (Kind.COMMAND, sql)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("", 62),
        (" -- nothing\n", 62),
        ("SELECT 1; SELECT 2", 62),
        ("INSERT INTO t SELECT 1; DROP TABLE t", 62),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 358),
        ("SELECT 1 into /* x */ outfile '/tmp/x' FORMAT CSV", 358),
        ("INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV", 358),
    ],
)
def test_what_is_refused(sql: str, code: int) -> None:
    with pytest.raises(QueryError) as caught:
        parse(sql.encode(), "TSV")
    assert caught.value.code == code


def test_a_format_that_is_no_name_is_refused() -> None:
    with pytest.raises(QueryError, match="not a format's name"):
        parse(b"SELECT 1", "TSV' x")


@pytest.mark.parametrize(
    "tail", ["'" * 1001, "'" + "\\" * 200_001, "/*" * 50_000, "(" * 200_000, "`" * 100_001, "$$" + "x$" * 90_000]
)
def test_unfinished_tokens_take_no_time(tail: str) -> None:
    assert parse(("SELECT 1 " + tail).encode(), "TSV").kind is Kind.SELECT
