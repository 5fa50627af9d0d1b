"""Restoring a backup into an empty deployment whose workers are stopped. Begun again after a crash, it is done anew.

Until it has ended nobody migrates the database, so that nothing starts on half of it: see ``Tables.begin``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from midstream import topics
from midstream.backup import carried, registry
from midstream.backup.claims import insert_erased, replace_claims
from midstream.backup.errors import BackupError
from midstream.backup.make import find_beside, opened, shown_bytes
from midstream.backup.manifest import Manifest, check_files, read_manifest
from midstream.backup.positions import SetBack, beginnings, check_without_members, set_back
from midstream.backup.staging import local_destination, staged
from midstream.backup.tables import EVENT_TABLES, Begun, Tables, Told
from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.clickhouse.migrate import load_migrations
from midstream.clickhouse.migrate import migrate as migrate_clickhouse
from midstream.dimensions import DimensionType
from midstream.erased import SUBKEY, ErasedKey
from midstream.kafka.admin import TopicsError, ensure_topics
from midstream.registry.admin_log import note_alone
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryError, RegistryUnavailable
from midstream.registry.keyfile import derive_key, key_path
from midstream.registry.migrate import migrate as migrate_registry
from midstream.registry.sync.erased import ErasedIds
from midstream.registry.sync.repair import RepairLease
from midstream.settings import Settings

CLICKHOUSE, REGISTRY = "clickhouse", "registry"
PARTS = (CLICKHOUSE, REGISTRY)

_SESSION_MARGIN_S = 5.0
_ERASED = "restore-erased"
"""File of the home: digests of erased users, for as long as a restore is under way."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be restored."""

    folder: Path
    parts: Collection[str] = PARTS
    replace: bool = False
    """Put it in the place of data that is there."""
    key: Path | None = None
    """The key file, where neither the backup nor the home has it."""


@dataclass(slots=True)
class Restored:
    """What a restore did."""

    id: str
    made_at_ms: int
    rows: dict[str, int] = field(default_factory=dict)
    """Of each table of ClickHouse."""
    erased: int = 0
    """Users erased since the backup, who stay so."""
    writes: int = 0
    """Learners' writes since the backup, taken from Kafka."""
    readers: SetBack = field(default_factory=SetBack)
    notes: list[str] = field(default_factory=list)
    """What is not as it was, in words."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


def verify(folder: Path, told: Told) -> Manifest:
    """See that a backup is whole, with those that it adds to, and of a version that this program knows.

    Raises:
        BackupError: it is not.
    """
    manifest = read_manifest(folder)
    newest = max(migration.version for migration in load_migrations())
    if manifest.clickhouse.migration > newest:
        raise BackupError(
            "NEWER_BACKUP",
            f"the backup's tables have migration {manifest.clickhouse.migration}, this program knows {newest}: restore "
            f"with Midstream {manifest.program}",
        )
    for part, its in _chain(folder, manifest):
        check_files(part, its, shown_bytes(part, told, f"checking {its.id}"))
    return manifest


def restore_backup(settings: Settings, wanted: Wanted, told: Told) -> Restored:
    """Restore. What is damaged, of another version or in the way is refused before anything is changed.

    Raises:
        BackupError: it cannot be done, or is to be begun again.
    """
    manifest = verify(wanted.folder, told)
    try:
        return _restore(settings, wanted, manifest, told)
    except ClickHouseError as error:
        raise BackupError("CLICKHOUSE", f"ClickHouse: {str(error)[:500]}") from None
    except RegistryError as error:
        raise BackupError("REGISTRY", f"registry: {error}") from None
    except TopicsError as error:
        raise BackupError("KAFKA", str(error)) from None
    except OSError as error:
        raise BackupError("BAD_FOLDER", f"{error.filename or settings.home}: {error.strerror}") from None


def _restore(settings: Settings, wanted: Wanted, manifest: Manifest, told: Told) -> Restored:
    restored = Restored(manifest.id, manifest.made_at_ms)
    told("looking at what is here", 0.0)
    if not settings.clickhouse:  # before anything is asked of Kafka, which may be a new one
        asyncio.run(ensure_topics(settings))
    with opened(settings, "default") as outer:
        tables = Tables(outer, settings.clickhouse_cluster)
        _check_target(settings, wanted, manifest, tables)
        secret = _find_key(settings, wanted, manifest)
        known = _erased_here(settings) | asyncio.run(_erased_in_kafka(settings, manifest, told))
        known = _remember_erased(settings, known)
        tables.begin(Begun(manifest.id, frozenset(wanted.parts)))
        if CLICKHOUSE in wanted.parts:
            _restore_tables(settings, wanted.folder, manifest, tables, restored, told)
        if REGISTRY in wanted.parts:
            told("restoring the registry", 0.0)
            if secret is not None:
                registry.restore_key(settings, secret)
            registry.restore_registry(settings, wanted.folder, manifest.registry)
        migrate_registry(settings)
        migrate_clickhouse(settings, is_restoring=True)
        with opened(settings) as clickhouse:
            engine = open_engine(settings)
            try:
                _carry_on(settings, wanted, manifest, engine, clickhouse, known, restored, told)
                note_alone(engine, "backup.restore", f"backup/{manifest.id}", parts=sorted(wanted.parts))
            finally:
                engine.dispose()
            restored.rows = tables.counts()
        tables.end()
        (settings.home / _ERASED).unlink(missing_ok=True)
    _note(manifest, restored)
    return restored


def _restore_tables(
    settings: Settings, folder: Path, manifest: Manifest, tables: Tables, restored: Restored, told: Told
) -> None:
    folders = {} if manifest.clickhouse.destination else {its.id: part for part, its in _chain(folder, manifest)}
    with staged(settings, folders):
        tables.restore(manifest.clickhouse.destination or local_destination(manifest.id), told)
    rows = tables.counts()
    if missing := sorted(set(manifest.clickhouse.rows) - set(rows)):
        raise BackupError("MISSING_TABLE", f"the tables {', '.join(missing)} are not in the backup of ClickHouse")
    for name in EVENT_TABLES:
        least = manifest.clickhouse.rows.get(name, 0)
        if rows.get(name, 0) < least:
            restored.notes.append(f"{name} has {rows.get(name, 0)} rows of at least {least}: retention, or a loss")


def _carry_on(
    settings: Settings,
    wanted: Wanted,
    manifest: Manifest,
    engine: Engine,
    clickhouse: ClickHouse,
    erased: set[str],
    restored: Restored,
    told: Told,
) -> None:
    """Bring what was restored to where Kafka can go on with it."""
    if REGISTRY in wanted.parts:
        RepairLease(engine).free()  # the copy was made while the backup held it: jobs would wait for it to run out
    told("erasures since the backup", 0.0)
    restored.erased = len(carried.add_erased(engine, erased, "")) if REGISTRY in wanted.parts else 0
    if CLICKHOUSE in wanted.parts:
        replace_claims(
            clickhouse, settings.clickhouse_cluster, manifest.clickhouse.claims, manifest.clickhouse.watermarks
        )
        insert_erased(clickhouse, sorted(ErasedIds(engine).all(DimensionType.USER)))
        told("setting readers back", 0.0)
        restored.readers = asyncio.run(set_back(settings, manifest.kafka))
    told("learners' records since the backup", 0.0)
    restored.writes = asyncio.run(_replay_writes(settings, manifest, engine, clickhouse))


async def _replay_writes(settings: Settings, manifest: Manifest, engine: Engine, clickhouse: ClickHouse) -> int:
    begins = await beginnings(settings, manifest.kafka, topics.ASSIGNMENT.name)
    return await carried.replay_writes(
        settings, begins, engine, clickhouse, lambda: ErasedKey(derive_key(settings, SUBKEY)), f"restore {manifest.id}"
    )


async def _erased_in_kafka(settings: Settings, manifest: Manifest, told: Told) -> set[str]:
    begins = dict.fromkeys(await beginnings(settings, manifest.kafka, topics.DIMENSIONS.name), 0)
    return await carried.erased_in_kafka(settings, begins, _counted(told))


def _counted(told: Told) -> Callable[[int], None]:
    read = 0

    def add(records: int) -> None:
        nonlocal read
        read += records
        if read % 10_000 == 0:
            told(f"looking for erasures: {read:,} dimensions", 0.0)

    return add


def _remember_erased(settings: Settings, digests: set[str]) -> set[str]:
    """Keep digests, with those of a restore that was broken off, until this one has ended: it may be broken off when
    the registry that knew them is gone."""
    path = settings.home / _ERASED
    if path.exists():
        digests = digests | set(path.read_text("ascii").split())
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    registry.write_durably(path, "\n".join(sorted(digests)).encode("ascii"))
    return digests


def _erased_here(settings: Settings) -> set[str]:
    """Return the digests that the present registry knows; none where there is no registry."""
    engine = open_engine(settings)
    try:
        return ErasedIds(engine).all(DimensionType.USER)
    except RegistryUnavailable:
        return set()
    finally:
        engine.dispose()


def _check_target(settings: Settings, wanted: Wanted, manifest: Manifest, tables: Tables) -> None:
    asyncio.run(check_without_members(settings, settings.kafka_session_timeout_ms / 1000 + _SESSION_MARGIN_S))
    begun = tables.begun()
    half = begun.parts if begun is not None else frozenset()
    if begun is not None and not half <= set(wanted.parts):
        raise BackupError(
            "RESTORE_BEGUN",
            f"the restore of {begun.backup} ({', '.join(sorted(half))}) was begun here and has not ended: begin it "
            "again, or another that has all of it",
        )
    in_the_way: list[str] = []
    if CLICKHOUSE in wanted.parts:
        if manifest.clickhouse.destination and not settings.clickhouse:
            raise BackupError("OTHER_CLICKHOUSE", "the backup's tables lie with a server: set MIDSTREAM_CLICKHOUSE")
        if settings.clickhouse and not manifest.clickhouse.destination:
            raise BackupError(
                "OTHER_CLICKHOUSE", "the backup's tables are those of a local engine: unset MIDSTREAM_CLICKHOUSE"
            )
        if CLICKHOUSE not in half:
            in_the_way += [f"{name} ({rows} rows)" for name, rows in tables.data().items()]
    if REGISTRY in wanted.parts:
        its = registry.check_registry(settings, manifest.registry)
        if REGISTRY not in half:
            in_the_way += [f"registry {name} ({rows} rows)" for name, rows in its.items()]
    if in_the_way and not wanted.replace:
        raise BackupError(
            "NOT_EMPTY", f"there is data here: {', '.join(in_the_way[:10])}. To put the backup in its place: --replace"
        )


def _find_key(settings: Settings, wanted: Wanted, manifest: Manifest) -> bytes | None:
    """Return the key file to be written; None where the right one is in its place.

    Raises:
        BackupError: ``NO_KEY``, ``OTHER_KEY``.
    """
    try:
        here = registry.key_fingerprint(settings)
    except RegistryUnavailable:
        here = ""
    if here == manifest.key_fingerprint:
        return None
    if REGISTRY not in wanted.parts:
        raise BackupError("OTHER_KEY", f"{key_path(settings)} is not the key file of this backup")
    source = wanted.key or (wanted.folder / registry.KEY_FILE if manifest.has_key else None)
    if source is None:
        raise BackupError(
            "NO_KEY",
            "the backup has no key file, and the home has another or none: without it no credential works and no "
            f"erased user is known. Put it at {key_path(settings)}, or name it with --key",
        )
    try:
        secret = source.read_bytes()
    except OSError as error:
        raise BackupError("NO_KEY", f"{source} cannot be read: {error.strerror}") from None
    if registry.fingerprint_of(secret) != manifest.key_fingerprint:
        raise BackupError("OTHER_KEY", f"{source} is not the key file of this backup")
    return secret


def _chain(folder: Path, manifest: Manifest) -> list[tuple[Path, Manifest]]:
    found = [(folder, manifest)]
    while base := found[-1][1].clickhouse.base:
        beside = find_beside(found[-1][0], base)
        found.append((beside, read_manifest(beside)))
    return found


def _note(manifest: Manifest, restored: Restored) -> None:
    """Say what is not as it was."""
    made = datetime.fromtimestamp(manifest.made_at_ms / 1000, UTC).isoformat(timespec="seconds")
    if restored.readers.other:
        restored.notes.append(
            f"other topics than those of the backup: {', '.join(restored.readers.other)}. What came after {made} and "
            "lay in them is lost; users erased after it are not known unless this registry knew them: erase them again"
        )
    for topic, records in sorted(restored.readers.gone.items()):
        restored.notes.append(f"{records} records of {topic} were deleted by Kafka before this restore: they are lost")
    restored.notes.append(
        f"what only the registry knew and was changed after {made} is as it was then: credentials and tokens, devices, "
        "academies, licences, revisions, jobs. Syncs that were asked for after it are to be asked for again"
    )
