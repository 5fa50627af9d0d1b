"""Who may do what in ClickHouse: one role for each kind of process, with no more rights than its statements need.

``midstream grants`` prints them as SQL. Views run with their reader's rights, so whoever reads a view is granted the
tables below it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from midstream.clickhouse.migrate import restore_marker

SELECT, INSERT, UPDATE, DELETE, OPTIMIZE = "SELECT", "INSERT", "ALTER UPDATE", "ALTER DELETE", "OPTIMIZE"

ANALYST_LIMITS = (
    "readonly = 2",  # HTTP clients set settings of their own, within what stands below
    "max_execution_time = 60 MAX 600",
    "max_memory_usage = 4000000000 MAX 16000000000",
    "max_concurrent_queries_for_user = 8",
)
"""Seconds, bytes. A query may ask for more, up to ``MAX``."""

PUBLIC_VIEWS = (
    *("events", "duplicates", "rejects", "batches", "accounting", "complete_until", "collectors", "dimensions"),
    *("retention", "losses", "progress", "device_state", "device_history", "device_messages"),
    *("assignment_telemetry", "assignment_telemetry_history", "assignment_steps"),
)
"""What analysts query."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role.

    Attributes:
        name: in ClickHouse.
        used_by: entry modules of the processes that have it; none for people.
        rights: for each right, the tables and views of our database.
        elsewhere: further rights, as they stand between GRANT and TO; ``{database}`` is ours, ``{marker}`` the one that
            says that a restore is under way.
    """

    name: str
    used_by: tuple[str, ...]
    rights: Mapping[str, tuple[str, ...]]
    elsewhere: tuple[str, ...] = ()
    limits: tuple[str, ...] = field(default=())


CHECKED = ("SELECT ON {database}.schema_migrations", "SELECT ON system.disks")
"""What `midstream check` looks at, as whichever process."""

_EVENTS = ("learning_events", "operational_events")
_LEDGER = ("batch_rows", "collector_rows", "loss_rows", "progress_rows", "watermark_rows")
_DEVICES = ("device_rows", "device_ahead_rows", "device_latest_rows")

WRITER = Role(
    "midstream_writer",
    ("processors.store.__main__", "processors.devices.__main__"),
    {
        SELECT: (
            *_EVENTS,
            *_LEDGER,
            *("correction_rows", "block_rows", "duplicate_rows", "reject_rows", "dimension_rows", "retention_rows"),
            *("device_rows", "device_ahead_rows"),
            *("accounting", "batches", "complete_until", "dimensions", "duplicates", "events", "losses", "progress"),
            *("rejects", "retention"),
        ),
        INSERT: (
            *_EVENTS,
            *_LEDGER,
            *("block_rows", "duplicate_rows", "reject_rows", "dimension_rows", "device_rows", "device_ahead_rows"),
        ),
    },
    ("SELECT ON system.events", *CHECKED),
)
API = Role(
    "midstream_api",
    ("serve.__main__", "serve.exhaust.days.builder.__main__"),
    {
        SELECT: (
            *("events", *_EVENTS, "correction_rows", "complete_until", "watermark_rows", "collectors"),
            *("collector_rows", "progress_rows", "retention_rows", "batch_rows", "block_rows", "duplicate_rows"),
            *("reject_rows", "dimension_rows", "assignment_rows", "exhaust_downloads", *_DEVICES),
            *("assignment_steps", "assignment_telemetry", "batches", "device_history", "dimensions", "retention"),
        ),
        INSERT: ("assignment_rows", "exhaust_downloads"),
    },
    CHECKED,
)
JOBS = Role(
    "midstream_jobs",
    ("serve.jobs.__main__",),
    {
        SELECT: (
            *(
                "events",
                *_EVENTS,
                "correction_rows",
                "collectors",
                "collector_rows",
                "batch_rows",
                "reject_rows",
                "rejects",
            ),
            *("dimension_rows", "dimensions", "assignment_rows", "device_history", *_DEVICES),
        ),
        INSERT: (*_EVENTS, "correction_rows", "reject_rows"),
        UPDATE: (*_EVENTS, "batch_rows", "device_rows", "device_latest_rows", "assignment_rows"),
        DELETE: (*_EVENTS, "dimension_rows", "assignment_rows"),
        OPTIMIZE: ("correction_rows", "reject_rows"),
    },
    (
        *(f"SELECT ON system.{name}" for name in ("parts", "metrics", "merge_tree_settings", "server_settings")),
        *CHECKED,
    ),
)
MIGRATOR = Role(
    "midstream_migrator",
    (),
    {},
    (
        "SHOW, SELECT, INSERT, ALTER, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW ON {database}.*",
        "CREATE DATABASE ON {database}.*",
        "SHOW DATABASES ON {marker}.*",
    ),
)
ANALYST = Role(
    "midstream_analyst",
    (),
    {
        SELECT: (
            *PUBLIC_VIEWS,
            *_EVENTS,
            *_LEDGER,
            *("correction_rows", "duplicate_rows", "reject_rows", "dimension_rows", "retention_rows"),
            *("assignment_rows", *_DEVICES),
        )
    },
    (),
    ANALYST_LIMITS,
)
PROCESSES = (WRITER, API, JOBS)
"""The roles of running processes."""

ROLES = (MIGRATOR, *PROCESSES, ANALYST)


def statements(role: Role, database: str, cluster: str, *, is_table: Callable[[str], bool]) -> Iterator[str]:
    """Yield the SQL that makes a role what it is, whatever it was before.

    Args:
        role: the role.
        database: ours.
        cluster: whose servers get it; "" for one server.
        is_table: whether a name is a table, which on a cluster is a pair of one that is distributed and one below it.
    """
    on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
    yield f"CREATE ROLE IF NOT EXISTS {role.name}{on_cluster}"
    if role.limits:  # apart: of a role that is there already, CREATE would leave the limits as they are
        yield f"ALTER ROLE {role.name}{on_cluster} SETTINGS {', '.join(role.limits)}"
    yield f"REVOKE{on_cluster} ALL ON *.* FROM {role.name}"
    for grant in grants(role, database, cluster, is_table=is_table):
        yield f"GRANT{on_cluster} {grant} TO {role.name}"


def grants(role: Role, database: str, cluster: str, *, is_table: Callable[[str], bool]) -> Iterator[str]:
    """Yield what stands between GRANT and TO. See :func:`statements`."""
    for right, names in role.rights.items():
        for name in sorted(set(names)):
            yield f"{right} ON `{database}`.{name}"
            if cluster and is_table(name):
                yield f"{right} ON `{database}`.{name}_local"
    for right in role.elsewhere:
        yield right.format(database=f"`{database}`", marker=f"`{restore_marker(database)}`")
    if cluster and (role.used_by or role is MIGRATOR):
        yield "CLUSTER, REMOTE ON *.*" if role is MIGRATOR or role is JOBS else "REMOTE ON *.*"
