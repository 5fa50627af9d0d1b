"""Making a backup, in the order that :mod:`midstream.backup` explains."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import inspect

from midstream.backup import registry
from midstream.backup.claims import read_claims
from midstream.backup.errors import BackupError
from midstream.backup.fence import fenced
from midstream.backup.manifest import (
    FORMAT,
    ClickHousePart,
    Manifest,
    read_manifest,
    sum_files,
    write_manifest,
)
from midstream.backup.positions import read_positions
from midstream.backup.staging import local_destination, staged
from midstream.backup.tables import Tables, Told
from midstream.clickhouse.client import ClickHouse, ClickHouseError, open_client
from midstream.registry.admin_log import note_alone
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryError
from midstream.registry.models import AdminLog
from midstream.settings import Settings

_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a backup is to be."""

    folder: Path
    destination: str = ""
    """Where ClickHouse copies to, ``{id}`` in it being the backup's; "": into the folder, which a local engine can."""
    base: Path | None = None
    """Folder of an earlier backup: only what has changed since is copied."""
    with_key: bool = False
    wait_s: float = 300.0
    """Longest wait for jobs that work on stored events."""


def make_backup(settings: Settings, wanted: Wanted, told: Told) -> Manifest:
    """Make a backup of a deployment that may be at work; return its manifest.

    Raises:
        BackupError: it cannot be made. The folder then holds no manifest, and no backup.
    """
    base = read_manifest(wanted.base) if wanted.base is not None else None
    id_ = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + uuid.uuid4().hex[:8]
    is_local = not wanted.destination
    if is_local and settings.clickhouse:
        raise BackupError(
            "NO_DESTINATION", "a ClickHouse server copies to where it can: name that with --clickhouse-to"
        )
    if base is not None and is_local != (not base.clickhouse.destination):
        raise BackupError("BAD_BASE", f"{wanted.base} has its tables elsewhere: make a full backup")
    _make_folder(wanted.folder)
    try:
        with opened(settings) as clickhouse, opened(settings, "default") as outer:
            tables = Tables(outer, settings.clickhouse_cluster)
            return _make(settings, wanted, id_, base, clickhouse, tables, told)
    except ClickHouseError as error:
        raise BackupError("CLICKHOUSE", f"ClickHouse: {str(error)[:500]}") from None
    except RegistryError as error:
        raise BackupError("REGISTRY", f"registry: {error}") from None
    except OSError as error:
        raise BackupError("BAD_FOLDER", f"{error.filename or wanted.folder}: {error.strerror}") from None


def _make(
    settings: Settings,
    wanted: Wanted,
    id_: str,
    base: Manifest | None,
    clickhouse: ClickHouse,
    tables: Tables,
    told: Told,
) -> Manifest:
    folder, made_at_ms = wanted.folder, time.time_ns() // 1_000_000
    _check_before(settings, wanted, tables)
    fingerprint = registry.key_fingerprint(settings)
    destination = wanted.destination.replace("{id}", id_) or local_destination(id_)
    folders = {} if wanted.destination else {id_: folder} | _chain(wanted.base)
    base_at = "" if base is None else base.clickhouse.destination or local_destination(base.id)
    engine = open_engine(settings)
    try:
        told("waiting for jobs", 0.0)
        with fenced(engine, clickhouse, wanted.wait_s) as fence, staged(settings, folders):
            tables.settle_patches()
            claims, watermarks = read_claims(clickhouse)
            kafka = asyncio.run(read_positions(settings))
            rows = tables.counts()
            if inspect(engine).has_table(AdminLog.__tablename__):  # a backup comes before an upgrade
                note_alone(engine, "backup.make", f"backup/{id_}", with_key=wanted.with_key)
            tables.copy(destination, base_at, fence.check, told)
            told("copying the registry", 0.0)
            registry_part = registry.copy_registry(settings, folder)
            fence.check()
    finally:
        engine.dispose()
    if wanted.with_key:
        registry.copy_key(settings, folder)
    clickhouse_part = ClickHousePart(
        destination=wanted.destination and destination,
        base="" if base is None else base.id,
        version=tables.version(),
        database=clickhouse.dsn.database,
        migration=tables.migration(),
        rows=rows,
        claims=claims,
        watermarks=watermarks,
    )
    manifest = Manifest(
        format=FORMAT,
        id=id_,
        made_at_ms=made_at_ms,
        program=version("midstream"),
        key_fingerprint=fingerprint,
        has_key=wanted.with_key,
        clickhouse=clickhouse_part,
        registry=registry_part,
        kafka=kafka,
        files=sum_files(folder, shown_bytes(folder, told, "checksums")),
    )
    write_manifest(folder, manifest)
    return manifest


def shown_bytes(folder: Path, told: Told, what: str) -> Callable[[int], None]:
    """Return what takes numbers of bytes and tells the share of a folder that they are."""
    total = max(sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()), 1)
    done = 0

    def add(size: int) -> None:
        nonlocal done
        done += size
        told(what, min(done / total, 1.0))

    return add


def _check_before(settings: Settings, wanted: Wanted, tables: Tables) -> None:
    if begun := tables.begun():
        raise BackupError(
            "RESTORE_BEGUN", f"the restore of {begun.backup} was begun here and has not ended: end it first"
        )
    if not tables.migration():
        raise BackupError("NO_TABLES", "ClickHouse has no tables of Midstream: `midstream migrate` makes them")
    if not wanted.destination and not settings.engine_backups_folder.parent.is_dir():
        raise BackupError("NO_ENGINE", f"{settings.home} has no local ClickHouse: set MIDSTREAM_HOME")


def _chain(base: Path | None) -> dict[str, Path]:
    """Return the folders by id of a backup and of those that it adds to: they lie side by side."""
    found: dict[str, Path] = {}
    while base is not None:
        manifest = read_manifest(base)
        found[manifest.id] = base
        base = find_beside(base, manifest.clickhouse.base) if manifest.clickhouse.base else None
    return found


def find_beside(folder: Path, id_: str) -> Path:
    """Return the folder of a backup by its id: the one beside another that holds it.

    Raises:
        BackupError: ``NO_BASE``.
    """
    for other in sorted(folder.resolve().parent.iterdir()):
        if other.is_dir():
            try:
                if read_manifest(other).id == id_:
                    return other
            except BackupError:
                continue
    raise BackupError("NO_BASE", f"{folder} adds to the backup {id_}, which is in no folder beside it: put it back")


def _make_folder(folder: Path) -> None:
    """Make the folder, of mode 0700.

    Raises:
        BackupError: ``BAD_FOLDER``: it cannot be made or written to, or holds something.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BackupError("BAD_FOLDER", f"{folder} is not empty: a backup takes a folder of its own")
        folder.chmod(0o700)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise BackupError("BAD_FOLDER", f"{folder} cannot be used: {error.strerror}") from None
    if not os.access(folder, os.W_OK) or free < _SPARE_BYTES:
        raise BackupError("BAD_FOLDER", f"{folder} cannot be written to, or its disk is full")


@contextmanager
def opened(settings: Settings, database: str | None = None) -> Iterator[ClickHouse]:
    """Open a client of ClickHouse for some time. Raises ClickHouseError."""
    client = open_client(settings, database=database)
    try:
        yield client
    finally:
        client.close()
