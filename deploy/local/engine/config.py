"""The engine's configuration, written anew at each start.

Limits fit a laptop. What queries may reach is limited by grants to tables: no files, no URLs, no other servers, and no
table engine that connects outwards (a Kafka table would keep the folder from being opened again). Backups are written
to one folder and read from there.

Text is read and written by one thread a query: several hold blocks of 65,000 rows each, a gigabyte with long texts.
The defaults for tables make small inserts cheap, which is what telemetry is on one machine: their cost is per column
file, per statistics object and per merge, not per row. A server keeps its own defaults; the DDL says nothing of these.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape  # nosec B406 # writes XML, reads none

from deploy.local.engine.request import MAX_QUERY_BYTES

_TABLE_ENGINES = (
    *("MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "CollapsingMergeTree"),
    *("VersionedCollapsingMergeTree", "CoalescingMergeTree", "Memory", "Log", "TinyLog", "StripeLog", "Null", "Set"),
    *("Join", "Buffer", "Merge"),
)

_GRANTS = (
    "GRANT SHOW, SELECT, INSERT, ALTER, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, BACKUP, KILL QUERY, CREATE DATABASE, "
    "CREATE TABLE, CREATE VIEW, CREATE ARBITRARY TEMPORARY TABLE, CREATE FUNCTION, SYSTEM FLUSH, SYSTEM MERGES, "
    "SYSTEM TTL MERGES, SYSTEM SYNC REPLICA, SYSTEM DROP CACHE, SYSTEM VIEWS ON *.*",
    # For BACKUP and RESTORE, which reach the allowed disk alone; READ ON FILE would open every file to table functions.
    "GRANT READ, WRITE ON DISK",
    "GRANT " + ", ".join(f"TABLE ENGINE ON {name}" for name in _TABLE_ENGINES),
)

_CONFIG = """<clickhouse>
    <users_config>{users}</users_config>
    <display_name>midstream</display_name>
    <max_server_memory_usage>{memory}</max_server_memory_usage>
    <mark_cache_size>{cache}</mark_cache_size>
    <index_mark_cache_size>{cache}</index_mark_cache_size>
    <primary_index_cache_size>{cache}</primary_index_cache_size>
    <query_condition_cache_size>16777216</query_condition_cache_size>
    <background_pool_size>2</background_pool_size>
    <max_parts_cleaning_thread_pool_size>2</max_parts_cleaning_thread_pool_size>
    <asynchronous_metrics_update_period_s>60</asynchronous_metrics_update_period_s>
    <access_control_improvements>
        <table_engines_require_grant>true</table_engines_require_grant>
    </access_control_improvements>
    <storage_configuration><disks><backups><type>local</type><path>{backups}/</path></backups></disks></storage_configuration>
    <backups><allowed_disk>backups</allowed_disk></backups>
    <merge_tree>
        <min_bytes_for_wide_part>134217728</min_bytes_for_wide_part>
        <min_parts_to_merge_at_once>{merge_parts}</min_parts_to_merge_at_once>
        <merge_selector_base>{merge_base}</merge_selector_base>
        <auto_statistics_types></auto_statistics_types>
    </merge_tree>
</clickhouse>
"""

_USERS = """<clickhouse>
    <profiles>
        <default>
            <max_memory_usage>{query_memory}</max_memory_usage>
            <max_execution_time>{timeout_s}</max_execution_time>
            <implicit_select>0</implicit_select>
            <max_query_size>{query_bytes}</max_query_size>
            <async_insert>0</async_insert>
            <input_format_parallel_parsing>0</input_format_parallel_parsing>
            <output_format_parallel_formatting>0</output_format_parallel_formatting>
            <use_concurrency_control>0</use_concurrency_control>
        </default>
    </profiles>
    <users>
        <default>
            <password></password>
            <profile>default</profile>
            <quota>default</quota>
            <networks><ip>::/0</ip></networks>
            <grants>{grants}</grants>
        </default>
    </users>
    <quotas><default/></quotas>
</clickhouse>
"""

MERGE_PARTS = 16
"""Fewest parts that are merged at once: every merge writes all columns anew, so few large ones cost less."""
MERGE_BASE = 25
"""How many times the largest part that is merged all of them together must have, while there are few parts: with the
default of 5, a part of a hundred megabytes is written anew for some small ones, and each row twice as often."""


def write_config(folder: Path, *, backups: Path, memory_bytes: int, query_timeout_ms: int) -> Path:
    """Write the two files into ``folder``; return the one that the engine is started with.

    ``backups`` is the folder below which backups lie.
    """
    folder.mkdir(parents=True, exist_ok=True)
    users = folder / "users.xml"
    users.write_text(
        _USERS.format(
            query_memory=memory_bytes * 3 // 4,
            timeout_s=query_timeout_ms / 1000,
            query_bytes=2 * MAX_QUERY_BYTES,  # the front has the say; the engine's own takes parameters in SET
            grants="".join(f"<query>{escape(grant)}</query>" for grant in _GRANTS),
        )
    )
    config = folder / "config.xml"
    config.write_text(
        _CONFIG.format(
            users=escape(str(users)),
            backups=escape(str(backups)),
            memory=memory_bytes,
            cache=memory_bytes // 16,
            merge_parts=MERGE_PARTS,
            merge_base=MERGE_BASE,
        )
    )
    return config
