"""Ordered migrations of ClickHouse: the files ``schemas/clickhouse/NNNN_*.sql``.

ClickHouse has neither transactions over DDL nor locks, so every statement is idempotent (``IF NOT EXISTS``) and two
migrations at once do the same thing twice without harm. What has run is recorded in ``schema_migrations``.

Statements end with ``;`` at the end of a line. Placeholders make the same file serve one server and a cluster:

=============================  =========================  ====================================================
written                        one server                 a cluster
=============================  =========================  ====================================================
``@table(NAME)``               ``NAME``                   ``NAME_local ON CLUSTER c``
``@like(NAME)``                ``NAME``                   ``NAME_local``
``@view(NAME)``                ``NAME``                   ``NAME ON CLUSTER c``
``@engine(MergeTree, ARGS)``   ``MergeTree(ARGS)``        ``ReplicatedMergeTree('<path>', '{replica}', ARGS)``
``@distributed(NAME, KEY)``    nothing                    a Distributed table NAME over NAME_local, by KEY
``@above(NAME, CHANGE)``       nothing                    ``ALTER TABLE NAME ON CLUSTER c CHANGE``
=============================  =========================  ====================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from midstream.clickhouse.client import ClickHouse, ClickHouseError, open_client, parse_dsn
from midstream.logs import get_logger
from midstream.settings import Settings

log = get_logger(__name__)

_RECORD_DDL = """CREATE TABLE IF NOT EXISTS @table(schema_migrations) (version UInt32, name String, applied_at
DateTime64(3, 'UTC')) ENGINE = @engine(ReplacingMergeTree, applied_at) ORDER BY version"""

_RECOMPRESS = "toDateTime(received_at) + toIntervalDay(1) RECOMPRESS CODEC(ZSTD(3))"
_IS_THERE = "SELECT 1 FROM system.databases WHERE name = {name:String}"
_LEARNING = "learning_events"
_OPERATIONAL = "operational_events"


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file."""

    version: int
    name: str
    text: str


def load_migrations() -> list[Migration]:
    """Return the migrations in order.

    Raises:
        ValueError: a file is misnamed, or a number is missing or there twice.
    """
    found: list[Migration] = []
    for entry in resources.files("schemas").joinpath("clickhouse").iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", entry.name)
        if match is None:
            raise ValueError(f"schemas/clickhouse/{entry.name}: expected NNNN_name.sql")
        found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("schemas/clickhouse: migrations must be numbered 0001, 0002, ... without a gap")
    return found


def table_names() -> frozenset[str]:
    """Return the tables that the migrations leave behind, without views."""
    text = "\n".join(re.sub(r"^\s*--.*$", "", migration.text, flags=re.MULTILINE) for migration in load_migrations())
    dropped = set(re.findall(r"DROP TABLE IF EXISTS @table\((\w+)\)", text))
    return frozenset({*re.findall(r"@table\((\w+)\)", text), "schema_migrations"} - dropped)


def render_statements(text: str, cluster: str) -> Iterator[str]:
    """Yield the statements of a migration for one server (``cluster`` empty) or for a cluster."""
    without_comments = re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE)
    for template in re.split(r";\s*(?:\n|$)", without_comments):
        statement = _render(template.strip(), cluster)
        if statement:
            yield statement


def _render(template: str, cluster: str) -> str:
    on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
    local = "_local" if cluster else ""

    def engine(match: re.Match[str]) -> str:
        family, _, arguments = match[1].partition(",")
        parts = [arguments.strip()] if arguments.strip() else []
        if cluster:
            family = f"Replicated{family}"
            parts = ["'/clickhouse/tables/{shard}/{database}/{table}'", "'{replica}'", *parts]
        return f"{family}({', '.join(parts)})"

    def distributed(match: re.Match[str]) -> str:
        name, _, key = match[1].partition(",")
        if not cluster:
            return ""
        return (
            f"CREATE TABLE IF NOT EXISTS {name}{on_cluster} AS {name}_local "
            f"ENGINE = Distributed('{cluster}', currentDatabase(), '{name}_local', {key.strip()})"
        )

    def above(match: re.Match[str]) -> str:
        name, _, change = match[1].partition(",")
        return f"ALTER TABLE {name}{on_cluster} {change.strip()}" if cluster else ""

    argument = r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)"
    template = re.sub("@distributed" + argument, distributed, template)
    template = re.sub("@above" + argument, above, template)
    template = re.sub(r"@table\((\w+)\)", rf"\1{local}{on_cluster}", template)
    template = re.sub(r"@like\((\w+)\)", rf"\1{local}", template)
    template = re.sub(r"@view\((\w+)\)", rf"\1{on_cluster}", template)
    return re.sub("@engine" + argument, engine, template)


def migrate(settings: Settings, *, is_restoring: bool = False) -> list[str]:
    """Create the database if it is missing, run what has not run yet, set the retention. Return the names that ran.

    ``is_restoring``: this is done by a restore, which nobody else may come before.

    Raises:
        ClickHouseError: ClickHouse is away or refuses a statement; what ran before stays, and a later call goes on. Or
            a backup is being restored, or was begun to be: nothing may start on half of it.
    """
    cluster = settings.clickhouse_cluster
    dsn = parse_dsn(settings.clickhouse_dsn)
    bootstrap = open_client(settings, database="default")
    try:
        on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
        marker = restore_marker(dsn.database)
        if not is_restoring and bootstrap.rows(_IS_THERE, {"name": marker}):
            raise ClickHouseError(
                f"the restore of a backup was begun here and has not ended (database {marker}): end it with "
                "`midstream restore`",
                None,
            )
        bootstrap.command(f"CREATE DATABASE IF NOT EXISTS `{dsn.database}`{on_cluster}")
    finally:
        bootstrap.close()
    client = open_client(settings)
    try:
        return _run(client, settings)
    finally:
        client.close()


def restore_marker(database: str) -> str:
    """Return the name of the database that is there from the begin of a restore to its end."""
    return f"{database}_restoring"


def _run(client: ClickHouse, settings: Settings) -> list[str]:
    cluster = settings.clickhouse_cluster
    client.command(_render(_RECORD_DDL, cluster))
    local = "_local" if cluster else ""
    done = {int(row[0]) for row in client.rows(f"SELECT DISTINCT version FROM schema_migrations{local}")}  # noqa: S608 - a constant
    ran: list[str] = []
    for migration in load_migrations():
        if migration.version in done:
            continue
        for statement in render_statements(migration.text, cluster):
            client.command(statement)
        client.command(
            f"INSERT INTO schema_migrations{local} VALUES ({migration.version}, '{migration.name}', now64(3))"  # noqa: S608 - file names are checked
        )
        ran.append(f"{migration.version:04d}_{migration.name}")
        log.info("migration.applied", version=migration.version, name=migration.name)
    _set_retention(client, _LEARNING, settings.retention_learning_days, cluster)
    _set_retention(client, _OPERATIONAL, settings.retention_operational_days, cluster)
    return ran


def _set_retention(client: ClickHouse, table: str, days: int, cluster: str) -> None:
    """Make the table's TTL agree with the setting, and note in ``retention_rows`` what it is and was.

    It goes by receipt, so that an old event synced today is kept as long as a new one. Besides, what is a day old is
    recompressed: inserts are small and cheap to compress, what merges make of them is large and kept.
    """
    name = f"{table}_local" if cluster else table
    on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
    wanted = _RECOMPRESS + (f", toDateTime(received_at) + toIntervalDay({days})" if days else "")
    ddl = str(
        client.rows(
            "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
            {"name": name},
        )[0][0]
    )
    match = re.search(r"\bTTL (.+?) SETTINGS\b", ddl)
    current = match[1].strip() if match else ""
    kept = re.search(r"toDateTime\(received_at\) \+ toIntervalDay\((\d+)\)$", current)
    if current != wanted:
        client.command(f"ALTER TABLE {name}{on_cluster} MODIFY TTL {wanted}", {"materialize_ttl_after_modify": 0})
        log.info("retention.set", table=table, days=days)
    _note_retention(client, table, days, int(kept[1]) if kept else 0)


def _note_retention(client: ClickHouse, table: str, days: int, days_before: int) -> None:
    """Tell the accounting what may have been deleted. A row of ``retention_rows`` is written when it changes.

    What was older than the retention before is gone, though a longer one be set now.
    """
    known = client.rows(
        "SELECT days FROM retention_rows FINAL WHERE table = {table:String}",
        {"table": table},
    )
    if known and int(known[0][0]) == days:
        return
    client.rows(
        "INSERT INTO retention_rows SELECT {table:String}, {days:UInt32}, greatest((SELECT max(deleted_before) FROM "
        "retention_rows WHERE table = {table:String}), if({before:UInt32} = 0, toDateTime64(0, 3, 'UTC'), "
        "now64(3, 'UTC') - toIntervalDay({before:UInt32}))), now64(3, 'UTC')",
        {"table": table, "days": days, "before": days_before},
    )
