"""What readers rely on: names, columns and types; migrations; retention."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.outside import Outside, make_event, now_ms, run_cli, unique

DAY_MS = 24 * 3600 * 1000

TEXT = r"(LowCardinality\()?String\)?"
TIME = r"DateTime64\(3, 'UTC'\)"
MAYBE_TIME = rf"Nullable\({TIME}\)"
COUNT = r"U?Int(32|64)"
BOOL = "Bool"

# The contract's, with the family of each column's type.
TABLES = {
    "events": {
        **dict.fromkeys(
            ["mid", "eid", "ver", "ets_original", "channel", "env", "did", "sid", "actor_id", "actor_type", "pdata_id",
             "pdata_pid", "pdata_ver", "object_id", "object_type", "object_ver", "object_rollup", "context_rollup",
             "cdata", "edata", "edata_type", "edata_id", "edata_pageid", "edata_subtype", "user", "device", "content",
             "location", "flags", "batch_id", "raw", "collection", "organisation", "batch", "collection_id",
             "organisation_id", "course_batch_id"],
            TEXT,
        ),
        "ets": TIME,
        "received_at": TIME,
        "stored_at": TIME,
        "sent_at": MAYBE_TIME,
        "tags": r"Array\(String\)",
        "edata_duration": r"Nullable\(Float64\)",
        "event_index": COUNT,
        "late": BOOL,
    },
    "duplicates": {
        **dict.fromkeys(["mid", "eid", "did", "channel", "batch_id", "first_batch_id"], TEXT),
        "event_index": COUNT,
        "received_at": TIME,
        "first_received_at": TIME,
        "differs": BOOL,
    },
    "rejects": {
        **dict.fromkeys(
            ["mid", "eid", "did", "channel", "batch_id", "code", "pointer", "message", "raw", "scope"], TEXT
        ),
        "event_index": COUNT,
        "received_at": TIME,
    },
    "batches": {
        **dict.fromkeys(
            ["batch_id", "msgid", "did", "channel", "app", "credential", "collector", "topic", "source"], TEXT
        ),
        "received_at": TIME,
        "sent_at": MAYBE_TIME,
        **dict.fromkeys(["bytes", "events", "sequence", "partition", "offset"], COUNT),
    },
    "accounting": {
        "minute": r"DateTime(64\(\d, 'UTC'\)|\('UTC'\))?",
        "channel": TEXT,
        **dict.fromkeys(["received", "stored", "duplicate", "rejected", "in_flight", "unaccounted"], COUNT),
    },
    "dimensions": {
        **dict.fromkeys(["type", "id", "attributes"], TEXT),
        "version": COUNT,
        "deleted": BOOL,
        "updated_at": TIME,
        "stored_at": TIME,
    },
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_every_promised_column_is_there(outside: Outside, table: str) -> None:
    sql = "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}"
    found = {row["name"]: row["type"] for row in outside.rows(sql, table=table)}
    assert set(TABLES[table]) <= set(found)
    wrong = {name: found[name] for name, type_ in TABLES[table].items() if not re.fullmatch(type_, found[name])}
    assert wrong == {}


@pytest.mark.parametrize("table", TABLES)
def test_everybody_may_read_it_without_final(outside: Outside, table: str) -> None:
    columns = ", ".join(f"`{name}`" for name in TABLES[table])
    assert outside.rows(f"SELECT {columns} FROM {table} LIMIT 1") is not None
    [row] = outside.rows(
        "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = {t:String}", t=table
    )
    assert row["engine"] == "View"


class Migrator:
    """A database of its own on the pipeline's ClickHouse, and what `midstream migrate` makes of it."""

    def __init__(self, outside: Outside, home: str) -> None:
        self._outside = outside
        self.database = unique("apart").replace("-", "_")
        server = outside.pipeline.clickhouse_dsn.rpartition("/")[0]
        self._env = {"MIDSTREAM_CLICKHOUSE": f"{server}/{self.database}", "MIDSTREAM_HOME": home}

    def run(self, **env: str) -> str:
        """Migrate; return what is said of it."""
        done = run_cli(self._outside.pipeline, "migrate", **self._env, **env)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def tables(self, database: str = "") -> dict[str, str]:
        """Return the definition of each table, by name, without the database's name."""
        database = database or self.database
        sql = "SELECT name, create_table_query AS ddl FROM system.tables WHERE database = {database:String}"
        rows = self._outside.rows(sql, database=database)
        return {
            row["name"]: row["ddl"].replace(f"{database}.", "") for row in rows if not row["name"].startswith(".inner")
        }

    def ttl(self, table: str) -> int | None:
        """Return the days that a table keeps what was received; None: for ever."""
        [ttl] = re.findall(r" TTL (.*?)(?: SETTINGS|$)", self.tables()[table]) or [""]
        deletes = [part for part in ttl.split(", ") if part and "RECOMPRESS" not in part]
        if not deletes:
            return None
        [delete] = deletes
        found = re.fullmatch(r"toDateTime\(received_at\) \+ toIntervalDay\((\d+)\)", delete)
        assert found, delete
        return int(found[1])


@pytest.fixture
def migrator(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrator]:
    apart = Migrator(outside, str(tmp_path_factory.mktemp("migrate")))
    yield apart
    outside.clickhouse.command(f"DROP DATABASE IF EXISTS {apart.database}")


def test_two_migrations_at_once_make_what_one_makes(outside: Outside, migrator: Migrator) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: migrator.run(), range(2)))
    assert migrator.tables() == migrator.tables("midstream")
    versions = "SELECT DISTINCT version, name FROM {}.schema_migrations ORDER BY version"
    assert outside.rows(versions.format(migrator.database)) == outside.rows(versions.format("midstream"))
    before = migrator.tables()
    assert "ClickHouse: 0" not in migrator.run()  # nothing was left to do
    assert migrator.tables() == before


def test_retention_goes_by_receipt_and_follows_its_setting(outside: Outside, migrator: Migrator) -> None:
    migrator.run()
    assert (migrator.ttl("learning_events"), migrator.ttl("operational_events")) == (None, 90)
    migrator.run(MIDSTREAM_RETENTION_OPERATIONAL_DAYS="0", MIDSTREAM_RETENTION_LEARNING_DAYS="400")
    assert (migrator.ttl("learning_events"), migrator.ttl("operational_events")) == (400, None)
    migrator.run(MIDSTREAM_RETENTION_OPERATIONAL_DAYS="30")
    assert (migrator.ttl("learning_events"), migrator.ttl("operational_events")) == (None, 30)

    # Three arrivals, each once as a learning event and once as a log: an event of last year that came today is kept
    # as long as one of today.
    moments = {"of today": (0, 0), "of last year": (365, 0), "received long ago": (40, 40)}
    for table in ("learning_events", "operational_events"):
        for mid, (event_days, receipt_days) in moments.items():
            outside.clickhouse.command(
                f"INSERT INTO {migrator.database}.{table} (mid, ets, received_at) VALUES ('{mid}',"
                f" fromUnixTimestamp64Milli({now_ms() - event_days * DAY_MS}),"
                f" fromUnixTimestamp64Milli({now_ms() - receipt_days * DAY_MS}))"
            )
        outside.clickhouse.command(f"OPTIMIZE TABLE {migrator.database}.{table} FINAL")
    left = "SELECT groupArray(mid) FROM (SELECT mid FROM {}.{} ORDER BY mid)"
    assert outside.value(left.format(migrator.database, "learning_events")) == sorted(moments)
    assert outside.value(left.format(migrator.database, "operational_events")) == ["of last year", "of today"]


def test_an_event_goes_to_one_table_by_its_kind(outside: Outside) -> None:
    events = [make_event(eid) for eid in ("START", "LOG", "ASSESS", "ERROR", "METRICS", "SEARCH")]
    batch_id = outside.send(events)
    outside.settle([batch_id])
    where = "WHERE batch_id = {id:String}"
    for table, eids in (
        ("learning_events", ["ASSESS", "SEARCH", "START"]),
        ("operational_events", ["ERROR", "LOG", "METRICS"]),
    ):
        rows = outside.rows(f"SELECT eid FROM {table} {where} ORDER BY eid", id=batch_id)
        assert [row["eid"] for row in rows] == eids


def test_a_row_is_what_the_event_and_its_batch_say(outside: Outside) -> None:
    """Every column of `events` and `batches`, of one event with all fields."""
    event = make_event(
        "INTERACT",
        tags=["b", "a"],
        object={"id": "do_1", "type": "Content", "ver": "2", "rollup": {"l1": "do_0", "l2": "do_2"}},
    )
    event["context"] |= {"rollup": {"l1": "org"}, "cdata": [{"type": "class", "id": "7"}], "channel": unique("c")}
    sent_ms = now_ms() - 5_000
    batch_id = outside.send(
        [event],
        params={"did": "params did", "msgid": unique("m"), "ets": 1},
        x_device_id="header did",
        x_channel_id="header channel",
        x_app_id="header app",
    )
    outside.settle([batch_id])
    row = outside.events([event["mid"]])[event["mid"]]
    assert sent_ms < row["sent_at"].timestamp() * 1000 <= row["received_at"].timestamp() * 1000 + 1
    assert row["received_at"] <= row["stored_at"]
    assert row["received_at"].timestamp() * 1000 == pytest.approx(now_ms(), abs=30_000)
    assert row["ets"].timestamp() * 1000 == pytest.approx(event["ets"], abs=0.5)
    context, edata = event["context"], event["edata"]
    expected = {
        "eid": "INTERACT",
        "ver": "3.0",
        "ets_original": str(event["ets"]),
        "channel": context["channel"],
        "env": context["env"],
        "did": context["did"],
        "sid": context["sid"],
        "actor_id": event["actor"]["id"],
        "actor_type": "User",
        "pdata_id": context["pdata"]["id"],
        "pdata_pid": context["pdata"]["pid"],
        "pdata_ver": context["pdata"]["ver"],
        "object_id": "do_1",
        "object_type": "Content",
        "object_ver": "2",
        "object_rollup": '{"l1":"do_0","l2":"do_2"}',
        "context_rollup": '{"l1":"org"}',
        "cdata": '[{"type":"class","id":"7"}]',
        "edata_type": edata["type"],
        "edata_id": edata["id"],
        "edata_pageid": edata["pageid"],
        "edata_subtype": edata["subtype"],
        "edata_duration": edata["duration"],
        "late": False,
        "batch_id": batch_id,
        "event_index": 0,
    }
    assert {name: row[name] for name in expected} == expected
    assert list(row["tags"]) == ["b", "a"]
    batch = outside.row("SELECT * FROM batches WHERE batch_id = {id:String}", id=batch_id)
    expected = {
        "did": "params did",
        "channel": "header channel",
        "app": "header app",
        "credential": "demo",
        "events": 1,
        "topic": "telemetry.raw",
        "source": "http",
        "received_at": row["received_at"],
        "sent_at": row["sent_at"],
    }
    assert {name: batch[name] for name in expected} == expected
    assert batch["bytes"] > 500
    assert batch["collector"]


def test_sequences_have_no_gap(outside: Outside) -> None:
    """Each life of a collector counts its batches from 0: what is missing could be named."""
    outside.settle([outside.send([make_event()]) for _ in range(5)])
    outside.wait_accounted()
    rows = outside.rows(
        "SELECT collector, count() AS batches, uniqExact(sequence) AS numbers, min(sequence) AS first,"
        " max(sequence) AS last FROM batches"
        " WHERE collector IN (SELECT collector FROM batches WHERE credential = 'demo') GROUP BY collector"
    )
    assert rows
    for row in rows:
        assert (row["first"], row["last"], row["numbers"]) == (0, row["batches"] - 1, row["batches"])
