import re

import pytest

from midstream.clickhouse.client import parse_dsn
from midstream.clickhouse.migrate import load_migrations, render_statements
from midstream.settings import SettingsError


def statements(cluster: str) -> list[str]:
    return [statement for migration in load_migrations() for statement in render_statements(migration.text, cluster)]


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [migration.version for migration in load_migrations()] == list(range(1, len(load_migrations()) + 1))


@pytest.mark.parametrize("cluster", ["", "fleet"])
def test_every_statement_is_idempotent_and_whole(cluster: str) -> None:
    for statement in statements(cluster):
        assert re.match(
            r"CREATE (TABLE|(MATERIALIZED )?VIEW) IF NOT EXISTS \w+|CREATE OR REPLACE VIEW \w+|"
            r"DROP TABLE IF EXISTS (device_history_rows|assignment_history)|"
            r"ALTER TABLE \w+( ON CLUSTER 'fleet')? "
            r"(ADD (COLUMN|PROJECTION) IF NOT EXISTS|DROP PROJECTION IF EXISTS|MODIFY SETTING|"
            r"MATERIALIZE PROJECTION) \w+",
            statement,
        ), statement
        assert "@" not in statement, statement


def test_on_one_server_nothing_is_replicated_or_distributed() -> None:
    text = "\n".join(statements(""))
    assert "Replicated" not in text
    assert "Distributed" not in text
    assert "ON CLUSTER" not in text
    assert "_local" not in text


def test_on_a_cluster_every_table_is_replicated_under_a_distributed_one() -> None:
    made = statements("fleet")
    for single in statements(""):
        match = re.match(r"CREATE TABLE IF NOT EXISTS (\w+)", single)
        if match is None:
            continue
        (local,) = [s for s in made if s.startswith(f"CREATE TABLE IF NOT EXISTS {match[1]}_local ON CLUSTER 'fleet'")]
        assert re.search(r"ENGINE = Replicated\w*MergeTree\('/clickhouse/tables/\{shard\}/", local), local
        (above,) = [s for s in made if s.startswith(f"CREATE TABLE IF NOT EXISTS {match[1]} ON CLUSTER 'fleet'")]
        assert f"Distributed('fleet', currentDatabase(), '{match[1]}_local'" in above


@pytest.mark.parametrize("cluster", ["", "fleet"])
def test_every_table_remembers_ten_thousand_blocks(cluster: str) -> None:
    for statement in statements(cluster):
        if "MergeTree" in statement:
            assert "non_replicated_deduplication_window = 10000" in statement
            assert "replicated_deduplication_window = 10000" in statement


def test_on_a_cluster_a_column_is_added_to_both_tables() -> None:
    for single in statements(""):
        if match := re.match(r"ALTER TABLE (\w+) ADD COLUMN IF NOT EXISTS (\w+) ", single):
            for name in (f"{match[1]}_local", match[1]):
                start = f"ALTER TABLE {name} ON CLUSTER 'fleet' ADD COLUMN IF NOT EXISTS {match[2]} "
                assert len([s for s in statements("fleet") if s.startswith(start)]) == 1, start


def test_no_table_or_view_asks_the_engine_for_the_time() -> None:
    assert not re.search(r"\bnow(64)?\(|today\(", "\n".join(statements("")))


def test_a_replacing_engine_keeps_its_version_column() -> None:
    (table,) = [s for s in statements("fleet") if "EXISTS dimension_rows_local" in s and "MergeTree" in s]
    path = "'/clickhouse/tables/{shard}/{database}/{table}'"
    assert f"ReplicatedReplacingMergeTree({path}, '{{replica}}', version)" in table


def test_a_dsn_is_read_whole() -> None:
    dsn = parse_dsn("https://ann:p%40ss@ch.example:9443/fleet")
    assert (dsn.interface, dsn.host, dsn.port, dsn.user, dsn.password, dsn.database) == (
        "https",
        "ch.example",
        9443,
        "ann",
        "p@ss",
        "fleet",
    )
    assert "p@ss" not in repr(dsn)


def test_a_dsn_has_defaults() -> None:
    dsn = parse_dsn("http://ch.example")
    assert (dsn.port, dsn.user, dsn.password, dsn.database) == (8123, "default", "", "midstream")


@pytest.mark.parametrize("dsn", ["", "ch.example:8123", "native://x", "http://", "http://x:port/"])
def test_a_malformed_dsn_is_named(dsn: str) -> None:
    with pytest.raises(SettingsError, match="MIDSTREAM_CLICKHOUSE"):
        parse_dsn(dsn)
