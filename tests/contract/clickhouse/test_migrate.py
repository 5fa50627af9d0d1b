"""Migrations on the real engine."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from midstream.clickhouse.client import ClickHouse, open_client
from midstream.clickhouse.migrate import load_migrations, migrate, render_statements
from midstream.settings import Settings


def test_they_run_once_and_are_recorded(settings: Settings) -> None:
    assert len(migrate(settings)) == len(load_migrations())
    assert migrate(settings) == []
    client = open_client(settings)
    recorded = client.rows("SELECT version FROM schema_migrations FINAL ORDER BY version")
    assert [row[0] for row in recorded] == [migration.version for migration in load_migrations()]


def test_two_at_once_leave_one_schema(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [settings] * 4))
    client = open_client(settings)
    assert client.rows("SELECT count() FROM events")[0][0] == 0
    assert migrate(settings) == []


def test_one_that_was_cut_short_is_finished_by_the_next(settings: Settings) -> None:
    migrate(settings)
    client = open_client(settings)
    last = load_migrations()[-1].version
    client.command(f"ALTER TABLE schema_migrations DELETE WHERE version = {last}", {"mutations_sync": 2})
    assert len(migrate(settings)) == 1


def ttl(client: ClickHouse, table: str) -> str:
    ddl = client.rows(
        "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        {"name": table},
    )[0][0]
    return ddl.partition(" TTL ")[2].partition(" SETTINGS")[0]


RECOMPRESS = "toDateTime(received_at) + toIntervalDay(1) RECOMPRESS CODEC(ZSTD(3))"


@pytest.mark.parametrize(
    ("days", "expected"), [(90, f"{RECOMPRESS}, toDateTime(received_at) + toIntervalDay(90)"), (0, RECOMPRESS)]
)
def test_retention_goes_by_receipt_and_follows_the_setting(settings: Settings, days: int, expected: str) -> None:
    migrate(settings.model_copy(update={"retention_operational_days": 7}))
    client = open_client(settings)
    assert ttl(client, "operational_events") == f"{RECOMPRESS}, toDateTime(received_at) + toIntervalDay(7)"
    migrate(settings.model_copy(update={"retention_operational_days": days}))
    assert ttl(client, "operational_events") == expected
    assert ttl(client, "learning_events") == RECOMPRESS


def test_the_clusters_statements_are_valid_syntax(clickhouse: ClickHouse) -> None:
    for migration in load_migrations():
        for sql in render_statements(migration.text, "fleet"):
            ((formatted,),) = clickhouse.rows("SELECT formatQuery({sql:String})", {"sql": sql})
            assert "ON CLUSTER fleet" in formatted


EXPECTED = {
    "events": "mid eid ver ets ets_original received_at stored_at sent_at channel env did sid actor_id actor_type "
    "pdata_id pdata_pid pdata_ver object_id object_type object_ver object_rollup context_rollup cdata tags edata "
    "edata_type edata_id edata_pageid edata_subtype edata_duration user device content location flags batch_id "
    "event_index late raw collection organisation batch collection_id organisation_id course_batch_id",
    "duplicates": "mid eid did channel batch_id event_index received_at first_batch_id first_received_at differs",
    "rejects": "mid eid did channel batch_id event_index received_at code pointer message raw scope events",
    "batches": "batch_id msgid received_at sent_at did channel app credential bytes events sequence collector topic "
    "partition offset source appended_at",
    "accounting": "minute channel received stored duplicate rejected in_flight unaccounted surplus complete_until",
    "collectors": "id low at open spooled_batches spooled_bytes oldest",
    "progress": "topic partition complete_offset published_at since",
    "losses": "minute events checked_at",
    "dimensions": "type id attributes version deleted updated_at stored_at",
    "device_state": "device_id key value at received_at",
    "device_history": "device_id key value at at_original received_at report_id",
    "assignment_telemetry": "academy_id user_id asset_slug id telemetry metrics engagement_score frustration_score "
    "completion_rate metrics_algo_version total_time created_at updated_at",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_readers_rely_on_is_there(clickhouse: ClickHouse, name: str) -> None:
    columns = {row[0]: row[1] for row in clickhouse.rows(f"DESCRIBE TABLE {name}")}
    assert set(EXPECTED[name].split()) <= set(columns)
    for column, type_ in columns.items():
        if column.endswith("_at") and column != "expires_at":
            assert "DateTime64" in type_, (column, type_)
            assert "UTC" in type_, (column, type_)
    assert clickhouse.rows(f"SELECT count() FROM {name}")[0][0] == 0


def test_original_times_are_strings_and_late_is_a_bool(clickhouse: ClickHouse) -> None:
    columns = {row[0]: row[1] for row in clickhouse.rows("DESCRIBE TABLE events")}
    assert columns["ets_original"] == "String"
    assert columns["late"] == "Bool"
