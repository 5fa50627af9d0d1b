"""The roles of ClickHouse against the source (what each process can name) and against the engine (what each may do)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from midstream.cli import cli
from midstream.clickhouse.grants import (
    ANALYST,
    ANALYST_LIMITS,
    API,
    CHECKED,
    DELETE,
    INSERT,
    JOBS,
    MIGRATOR,
    OPTIMIZE,
    PUBLIC_VIEWS,
    ROLES,
    SELECT,
    UPDATE,
    WRITER,
    Role,
    grants,
    statements,
)
from midstream.clickhouse.migrate import load_migrations, render_statements, restore_marker, table_names
from midstream.settings import get_settings

from .named_tables import modules_of, names_of, path_of, tables_and_views

_TABLES, _VIEWS = tables_and_views()
_FEEDS = {view for view in _VIEWS if view.endswith("_feed")}  # run by an insert, with the rights of who made them
_WRITES = {
    INSERT: re.compile(r"insert_stream\(|INSERT INTO"),
    UPDATE: re.compile(r"[^_]\bUPDATE [{a-z]|\} UPDATE |APPLY PATCHES"),
    DELETE: re.compile(r"\bDELETE (WHERE|FROM)"),
    OPTIMIZE: re.compile(r"\bOPTIMIZE TABLE"),
}


def _with_what_is_below(names: set[str]) -> set[str]:
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _VIEWS.get(name, ())
    return found


@cache
def _named(*entries: str) -> frozenset[str]:
    modules = modules_of(*entries)
    return frozenset().union(*(names_of(module, _TABLES, frozenset(_VIEWS)) for module in modules))


@pytest.mark.parametrize("role", [WRITER, API, JOBS], ids=lambda role: role.name)
def test_a_process_is_granted_the_tables_that_it_names_and_no_others(role: Role) -> None:
    assert all(path_of(entry) for entry in role.used_by)
    granted = {name for names in role.rights.values() for name in names}
    assert granted == _with_what_is_below(set(_named(*role.used_by)))


@pytest.mark.parametrize("role", [WRITER, API, JOBS], ids=lambda role: role.name)
def test_a_process_may_write_in_the_ways_that_it_has_statements_for(role: Role) -> None:
    text = "\n".join(path_of(module).read_text("utf-8") for module in modules_of(*role.used_by))
    has = {right for right, pattern in _WRITES.items() if pattern.search(text)}
    assert has == set(role.rights) - {SELECT}
    for right, names in role.rights.items():
        if right != SELECT:
            assert set(names) <= _TABLES & _named(*role.used_by)


@pytest.mark.parametrize("role", [WRITER, API, JOBS], ids=lambda role: role.name)
def test_a_process_is_granted_the_systems_tables_that_it_reads(role: Role) -> None:
    adapter = "midstream.clickhouse.client"  # its one query of its own is of who calls dropped_inserts()
    modules = modules_of(*role.used_by)
    text = "\n".join(path_of(module).read_text("utf-8") for module in modules - {adapter})
    if ".dropped_inserts()" in text:
        text += path_of(adapter).read_text("utf-8")
    read = set(re.findall(r"FROM (system\.\w+)", text)) - {"system.tables", "system.columns", "system.databases"}
    assert {f"SELECT ON {name}" for name in read} | set(CHECKED) == set(role.elsewhere)  # everybody may read the three


def test_processes_of_no_role_have_no_statements() -> None:
    assert _named("ingest.__main__", "ingest.app") == frozenset()
    assert _named("processors.validate.__main__") == frozenset()


def test_analysts_read_the_public_views_and_what_is_below_them() -> None:
    assert set(PUBLIC_VIEWS) == set(_VIEWS) - _FEEDS
    assert set(ANALYST.rights) == {SELECT}
    assert set(ANALYST.rights[SELECT]) == _with_what_is_below(set(PUBLIC_VIEWS))


def test_the_command_prints_all_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDSTREAM_CLICKHOUSE", "http://h/other")
    get_settings.cache_clear()
    try:
        result = CliRunner().invoke(cli, ["grants", "--cluster", "c1"])
        refused = CliRunner().invoke(cli, ["grants", "--database", "x`; DROP"])
    finally:
        get_settings.cache_clear()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert all(line.endswith(";") for line in lines)
    assert "GRANT ON CLUSTER 'c1' INSERT ON `other`.learning_events_local TO midstream_writer;" in lines
    assert not any("events_local" in line and "`.events_local" in line for line in lines)
    assert sum(line.startswith("CREATE ROLE") for line in lines) == len(ROLES)
    limits = "ALTER ROLE midstream_analyst ON CLUSTER 'c1' SETTINGS " + ", ".join(ANALYST_LIMITS)
    assert [line for line in lines if "SETTINGS" in line] == [f"{limits};"]
    assert refused.exit_code == 2


_ENGINE = """
import json, sys
from pathlib import Path
from xml.sax.saxutils import escape
from chdb.state.sqlitelike import connect

folder, given = Path(sys.argv[1]), json.load(sys.stdin)
queries = "".join(f"<query>{escape(query)}</query>" for query in given["grants"])
(folder / "users.xml").write_text(
    "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>"
    "<profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks>"
    f"<grants>{queries}</grants></default></users></clickhouse>"
)
(folder / "config.xml").write_text(
    f"<clickhouse><users_config>{folder}/users.xml</users_config><access_control_improvements>"
    "<select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>"
    "</access_control_improvements></clickhouse>"
)
connection = connect(f"{folder}/data?config-file={folder}/config.xml")
said = []
for statement in given["statements"]:
    try:
        connection.query(statement, "TabSeparated")
        said.append("")
    except RuntimeError as error:
        said.append(str(error))
connection.close()
print(json.dumps(said))
"""


def _run(folder: Path, granted: list[str], asked: list[str]) -> list[str]:
    """Run statements in an engine of their own, whose user has these grants only; return what each was refused with."""
    done = subprocess.run(
        [sys.executable, "-c", _ENGINE, str(folder)],
        input=json.dumps({"grants": granted, "statements": asked}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: list[str] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the engine with all tables, made by a user who has the migrator's rights only."""
    made = tmp_path_factory.mktemp("engine")
    ddl = ["CREATE DATABASE IF NOT EXISTS m", "USE m"]
    record = "CREATE TABLE schema_migrations (version UInt32) ENGINE = MergeTree ORDER BY version"
    ddl += [*(one for migration in load_migrations() for one in render_statements(migration.text, "")), record]
    granted = [f"GRANT {grant}" for grant in grants(MIGRATOR, "m", "", is_table=_TABLES.__contains__)]
    said = _run(made, granted, [*ddl, "CREATE USER x", "DROP DATABASE m", "CREATE DATABASE other"])
    assert [one for one in said[: len(ddl)] if one] == []
    assert ["ACCESS_DENIED" in one for one in said[len(ddl) :]] == [True, True, True]
    return made


def test_a_migrator_sees_that_a_restore_has_not_ended(tmp_path: Path) -> None:
    """`midstream migrate` refuses then; a user who may not see the database would begin on half of the tables."""
    assert _run(tmp_path, ["GRANT CREATE DATABASE ON *.*"], [f"CREATE DATABASE {restore_marker('m')}"]) == [""]
    granted = [f"GRANT {grant}" for grant in grants(MIGRATOR, "m", "", is_table=_TABLES.__contains__)]
    looked = f"SELECT throwIf(count() = 0) FROM system.databases WHERE name = '{restore_marker('m')}'"
    assert _run(tmp_path, granted, [looked, f"DROP DATABASE {restore_marker('m')}"])[0] == ""


def _statements(name: str) -> dict[str, str]:
    """Return one statement for each right to a table, which changes nothing."""
    return {
        SELECT: f"SELECT * FROM m.{name} LIMIT 0",
        INSERT: f"INSERT INTO m.{name} SELECT * FROM null('x String') WHERE 0",
        UPDATE: f"ALTER TABLE m.{name} APPLY PATCHES",
        DELETE: f"ALTER TABLE m.{name} DELETE WHERE 0",
        OPTIMIZE: f"OPTIMIZE TABLE m.{name}",
    }


@pytest.mark.parametrize("role", [WRITER, API, JOBS, ANALYST], ids=lambda role: role.name)
def test_the_engine_lets_a_role_do_what_it_is_granted_and_refuses_all_else(role: Role, folder: Path) -> None:
    granted = [f"GRANT {grant}" for grant in grants(role, "m", "", is_table=_TABLES.__contains__)]
    asked = [
        (right, name, statement)
        for name in sorted(_TABLES | set(_VIEWS) - _FEEDS)
        for right, statement in _statements(name).items()
        if name in _TABLES or right == SELECT
    ]
    others = [
        *("CREATE TABLE m.x (a Int8) ENGINE = Memory", "DROP TABLE m.learning_events", "TRUNCATE TABLE m.batch_rows"),
        *(
            "CREATE USER x",
            "SYSTEM STOP MERGES m.batch_rows",
            "ALTER TABLE m.batch_rows ADD COLUMN x Int8",
            "DROP DATABASE m",
        ),
        *(
            "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a Int8')",
            "SELECT * FROM file('/etc/hostname', CSV, 'a String')",
        ),
    ]
    said = _run(folder, granted, [*(statement for *_, statement in asked), *others])
    may = {
        (right, name) for (right, name, _), answer in zip(asked, said, strict=False) if "ACCESS_DENIED" not in answer
    }
    checked = {(SELECT, "schema_migrations")} if CHECKED[0] in role.elsewhere else set()
    assert may == checked | {(right, name) for right, names in role.rights.items() for name in names}
    assert [one for one, answer in zip(others, said[len(asked) :], strict=True) if "ACCESS_DENIED" not in answer] == []


@pytest.mark.parametrize("cluster", ["", "c1"])
def test_every_statement_is_one_that_the_engine_can_read(cluster: str, tmp_path: Path) -> None:
    tables = table_names()
    texts = [one for role in ROLES for one in statements(role, "m", cluster, is_table=tables.__contains__)]
    said = _run(
        tmp_path, ["GRANT SELECT ON *.*"], [f"EXPLAIN AST {one}" for one in texts] + ["EXPLAIN AST GRANT SELEC"]
    )
    assert [one for one in said[:-1] if one] == []
    assert "SYNTAX_ERROR" in said[-1]
