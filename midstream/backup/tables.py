"""ClickHouse's own BACKUP and RESTORE: the statements, run in the server's background and watched."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from midstream.backup.errors import BackupError
from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.clickhouse.migrate import restore_marker

Told = Callable[[str, float], None]
"""Told what is done, and how much of it (0 to 1)."""

EVENT_TABLES = ("learning_events", "operational_events")
_BOOKKEEPING = (
    *("schema_migrations", "retention_rows", "progress_rows", "watermark_rows", "collector_rows"),
    *("correction_rows", "loss_rows"),
)
"""Tables that have rows although nothing was ever received."""

_POLL_S = 0.25
_SILENT_S = 60.0
"""Longest time that the server may not answer while it copies."""

_NAME = r"[A-Za-z_]\w*"
_TEXT = r"'(?:[^'\\]|\\.)*'"
_DESTINATION = re.compile(
    rf"Disk\(\s*(?:{_TEXT}|{_NAME})\s*,\s*{_TEXT}\s*\)|File\(\s*{_TEXT}\s*\)"
    rf"|(?:S3|AzureBlobStorage)\(\s*{_NAME}\s*(?:,\s*{_TEXT}\s*)?\)"
)
"""Of S3 and Azure only a named collection: an address may hold a key."""
_BUSY = ("CREATING_BACKUP", "RESTORING")


def check_destination(text: str) -> str:
    """Return a destination as BACKUP takes it, such as ``Disk('backups', 'NAME')`` or ``S3(collection, 'PATH')``.

    Raises:
        BackupError: ``BAD_DESTINATION``: it is none, or holds credentials, which would stand in the manifest.
    """
    if _DESTINATION.fullmatch(text.strip()) is None:
        raise BackupError(
            "BAD_DESTINATION",
            "expected Disk('DISK', 'PATH'), File('PATH') or S3(COLLECTION, 'PATH'), with the credentials in a named "
            "collection of the server",
        )
    return text.strip()


class Begun(NamedTuple):
    """A restore that has not ended: of which backup, and what of it."""

    backup: str
    parts: frozenset[str]


class Tables:
    """One database of a ClickHouse."""

    def __init__(self, clickhouse: ClickHouse, cluster: str) -> None:
        """``clickhouse`` is connected to the database ``default``, as ours may not be there."""
        self._clickhouse = clickhouse
        self._database = clickhouse.dsn.database
        self._on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
        self._local = "_local" if cluster else ""
        self._marker = restore_marker(self._database)

    def version(self) -> str:
        """Return the server's version."""
        return str(self._clickhouse.rows("SELECT version()")[0][0])

    def migration(self) -> int:
        """Return the number of the newest migration; 0: the database has none of our tables."""
        if not self._has("schema_migrations"):
            return 0
        query = f"SELECT max(version) FROM `{self._database}`.schema_migrations{self._local}"  # noqa: S608
        return int(self._clickhouse.rows(query)[0][0])

    def counts(self) -> dict[str, int]:
        """Return the rows of each table, as they lie there."""
        names = self._clickhouse.rows(
            "SELECT name FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree' "
            "ORDER BY name",
            {"database": self._database},
        )
        return {
            name: int(self._clickhouse.rows(f"SELECT count() FROM `{self._database}`.`{name}`")[0][0])  # noqa: S608
            for (name,) in names
        }

    def data(self) -> dict[str, int]:
        """Return the tables with rows of somebody's, and how many."""
        local = tuple(f"{name}{self._local}" for name in _BOOKKEEPING)
        return {name: rows for name, rows in self.counts().items() if rows and name not in local}

    def begun(self) -> Begun | None:
        """Return the restore that was begun here and has not ended."""
        rows = self._clickhouse.rows(
            "SELECT comment FROM system.databases WHERE name = {name:String}", {"name": self._marker}
        )
        if not rows:
            return None
        backup, *parts = str(rows[0][0]).split() or ["unknown"]
        return Begun(backup, frozenset(parts))

    def begin(self, begun: Begun) -> None:
        """Note that a restore begins: until it ends, nobody migrates this database, so that nothing starts on it."""
        if self.begun() not in (None, begun):
            self.end()
        comment = " ".join((begun.backup, *sorted(begun.parts)))
        self._clickhouse.command(
            f"CREATE DATABASE IF NOT EXISTS `{self._marker}`{self._on_cluster} COMMENT '{comment}'"
        )

    def end(self) -> None:
        """Note that the restore has ended."""
        self._clickhouse.command(f"DROP DATABASE IF EXISTS `{self._marker}`{self._on_cluster} SYNC")

    def settle_patches(self) -> None:
        """Have corrections written into the parts that they are of: ClickHouse leaves patch parts out of a backup."""
        for table in EVENT_TABLES:
            self._clickhouse.command(
                f"ALTER TABLE `{self._database}`.{table}{self._local}{self._on_cluster} APPLY PATCHES",
                {"mutations_sync": 2},
            )

    def copy(self, destination: str, base: str, check: Callable[[], None], told: Told) -> None:
        """Copy all tables.

        Args:
            destination: where to, see :func:`check_destination`.
            base: the backup that this one adds to; "": none.
            check: called while it goes on; raises to have it given up.
            told: of the progress.

        Raises:
            BackupError: ``CLICKHOUSE_BACKUP``, with ClickHouse's own words.
            ClickHouseError: it is away.
        """
        settings = f", base_backup = {base}" if base else ""
        self._run(
            f"BACKUP DATABASE `{self._database}`{self._on_cluster} TO {destination}", settings, "copying", check, told
        )

    def restore(self, destination: str, told: Told) -> None:
        """Put the tables of a backup in the place of the database. Raises as :meth:`copy`, ``CLICKHOUSE_RESTORE``.

        The tables are new ones, which remember no deduplication token.
        """
        self._clickhouse.command(f"CREATE DATABASE IF NOT EXISTS `{self._database}`{self._on_cluster}")
        # Views first, as they feed tables. Not the database itself: the local engine's connections open it.
        tables = self._clickhouse.rows(
            "SELECT name FROM system.tables WHERE database = {database:String} "
            "ORDER BY endsWith(engine, 'View') DESC, name",
            {"database": self._database},
        )
        for (name,) in tables:
            self._clickhouse.command(f"DROP TABLE IF EXISTS `{self._database}`.`{name}`{self._on_cluster} SYNC")
        statement = f"RESTORE DATABASE `{self._database}`{self._on_cluster} FROM {destination}"
        self._run(statement, "", "restoring", _go_on, told)

    def _has(self, table: str) -> bool:
        found = self._clickhouse.rows(
            "SELECT count() FROM system.tables WHERE database = {database:String} AND name = {name:String}",
            {"database": self._database, "name": f"{table}{self._local}"},
        )
        return bool(found[0][0])

    def _run(self, statement: str, settings: str, what: str, check: Callable[[], None], told: Told) -> None:
        id_ = str(uuid.uuid4())
        code = "CLICKHOUSE_BACKUP" if what == "copying" else "CLICKHOUSE_RESTORE"
        try:
            self._clickhouse.command(f"{statement} SETTINGS id = '{id_}'{settings} ASYNC")
        except ClickHouseError as error:
            if error.code is None:
                raise
            raise BackupError(code, str(error)[:1_000]) from None
        heard_at = time.monotonic()
        while True:
            check()
            try:
                rows = self._clickhouse.rows(
                    "SELECT status, error, num_files, files_read, total_size, bytes_read FROM system.backups "
                    "WHERE id = {id:String}",
                    {"id": id_},
                )
                heard_at = time.monotonic()
            except ClickHouseError:
                if time.monotonic() - heard_at > _SILENT_S:
                    raise
                time.sleep(_POLL_S)
                continue
            if not rows:
                raise BackupError(code, "ClickHouse was started anew in the middle of it")
            status, error_text, _files, _read, total, read = rows[0]
            if status not in _BUSY:
                break
            told(f"{what} tables", min(int(read) / int(total), 1.0) if total else 0.0)
            time.sleep(_POLL_S)
        if status not in ("BACKUP_CREATED", "RESTORED"):
            raise BackupError(code, f"{status}: {str(error_text)[:1_000]}")
        told(f"{what} tables", 1.0)


def _go_on() -> None:
    """A restore is not given up half way."""
