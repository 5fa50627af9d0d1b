"""Backups of a real engine and a registry in SQLite, and what a restore refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from midstream.backup import make, registry, restore
from midstream.backup.errors import BackupError
from midstream.backup.manifest import MANIFEST, read_manifest, write_manifest
from midstream.clickhouse.client import ClickHouseError
from midstream.clickhouse.migrate import migrate as migrate_clickhouse
from midstream.correct.overlay import Objects, Overlay
from midstream.erased import SUBKEY, ErasedKey
from midstream.registry.admin_log import read_acts
from midstream.registry.credentials import Credentials
from midstream.registry.engine import open_engine
from midstream.registry.keyfile import derive_key, ensure_key, key_path
from midstream.registry.sync.erased import ErasedIds
from midstream.registry.sync.jobs import Jobs, Order
from midstream.registry.sync.queue import Queue
from midstream.settings import Settings

from .conftest import KAFKA, Deploy, Deployment


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(BackupError) as caught:
        call()
    return caught.value.code


def digest_of(settings: Settings, user: str) -> str:
    return ErasedKey(derive_key(settings, SUBKEY)).digest("user", user)


def give_another_key(deployment: Deployment) -> None:
    key_path(deployment.settings).unlink()
    ensure_key(deployment.settings)


def test_what_is_restored_into_an_empty_home_is_what_was_backed_up(one: Deployment, deploy: Deploy) -> None:
    credentials = Credentials(one.settings)
    token = credentials.create("before").token
    credentials.close()
    one.clickhouse.command(
        "INSERT INTO progress_rows VALUES ('telemetry.raw', 0, 7, toDateTime64(100, 3), toDateTime64(5, 3))"
    )
    one.clickhouse.command("INSERT INTO watermark_rows VALUES ('complete', toDateTime64(90, 3))")
    one.clickhouse.command("INSERT INTO collector_rows (id, open) VALUES ('gone', true)")
    made = one.backup()
    assert (made.clickhouse.rows["learning_events"], made.has_key) == (1_000, True)
    assert (one.folder / "full").stat().st_mode & 0o777 == 0o700
    assert list(one.settings.engine_backups_folder.iterdir()) == []  # no link is left

    other = deploy("other")
    key_path(other.settings).unlink()
    Path(other.settings.home / "registry.db").unlink()
    done = other.restore()
    assert other.value("SELECT count() FROM events") == 1_000
    assert done.rows["learning_events"] == 1_000
    assert other.kafka.set_back == [KAFKA]
    credentials = Credentials(other.settings)
    assert credentials.token("before").token == token
    credentials.close()
    # What the accounting claims is what it claimed before anything was copied; collectors are heard of anew.
    assert other.value("SELECT complete_offset FROM progress") == 7
    assert other.value("SELECT toUnixTimestamp(complete_until) FROM complete_until") == 90
    assert other.value("SELECT count() FROM collectors") == 0
    assert migrate_clickhouse(other.settings) == []
    engine = open_engine(other.settings)
    acts = [(act.action, act.object) for act in read_acts(engine, limit=2)]
    engine.dispose()
    assert acts == [("backup.restore", f"backup/{made.id}"), ("backup.make", f"backup/{made.id}")]
    # Tables that were restored feed their views still.
    other.clickhouse.command("INSERT INTO device_rows (device_id, kind, key, at) VALUES ('d', 'value', 'k', now64(6))")
    assert other.value("SELECT count() FROM device_latest_rows") == 1


def test_claims_that_are_newer_than_what_was_copied_are_not_restored(
    one: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the claims and the copy of their table the accounting went on."""
    one.clickhouse.command("INSERT INTO watermark_rows VALUES ('complete', toDateTime64(90, 3))")
    asked = make.read_positions

    async def read_positions(settings: Settings) -> object:
        one.clickhouse.command("INSERT INTO watermark_rows VALUES ('complete', toDateTime64(95, 3))")
        return await asked(settings)

    monkeypatch.setattr(make, "read_positions", read_positions)
    one.backup()
    one.restore(replace=True)
    assert one.value("SELECT toUnixTimestamp(complete_until) FROM complete_until") == 90


def test_corrections_that_lie_beside_the_parts_are_in_the_backup(one: Deployment) -> None:
    """ClickHouse leaves patch parts out of its backups."""
    one.clickhouse.command("UPDATE learning_events SET content = 'new' WHERE toUInt32(mid) < 10")
    patches = (
        "SELECT count() FROM system.parts WHERE active AND table = 'learning_events' AND startsWith(name, 'patch-')"
    )
    assert one.value(patches)
    one.backup()
    one.restore(replace=True)
    assert one.value("SELECT countIf(content = 'new') FROM events") == 10


def test_a_backup_that_adds_to_another_needs_it_beside(one: Deployment) -> None:
    one.backup()
    one.add_events(1_000, 10)
    one.backup("second", base="full")
    one.add_events(2_000, 5)
    made = one.backup("third", base="second")
    first_bytes, third_bytes = (
        sum(f.bytes for n, f in read_manifest(one.folder / name).files.items() if n.endswith(".bin"))
        for name in ("full", "third")
    )
    assert third_bytes < first_bytes / 2
    assert made.clickhouse.base == read_manifest(one.folder / "second").id
    one.restore("third", replace=True)
    assert one.value("SELECT count() FROM events") == 1_015
    (one.folder / "full").rename(one.folder.parent / "elsewhere")
    assert code_of(lambda: one.restore("third", replace=True)) == "NO_BASE"
    assert one.value("SELECT count() FROM events") == 1_015


def test_data_that_is_there_is_not_replaced_unasked(one: Deployment) -> None:
    one.backup()
    one.add_events(5_000, 3)
    assert code_of(one.restore) == "NOT_EMPTY"
    assert one.value("SELECT count() FROM events") == 1_003
    one.restore(replace=True)
    assert one.value("SELECT count() FROM events") == 1_000


def test_a_folder_with_something_in_it_takes_no_backup(one: Deployment) -> None:
    (one.folder / "full").mkdir()
    (one.folder / "full" / "other").touch()
    assert code_of(one.backup) == "BAD_FOLDER"
    (one.folder / "file").touch()
    assert code_of(lambda: one.backup("file")) == "BAD_FOLDER"


@pytest.mark.parametrize("change", ["damage", "loss", "newer", "table", "unended"])
def test_a_backup_that_is_not_whole_or_not_ours_changes_nothing(one: Deployment, change: str) -> None:
    one.backup()
    folder = one.folder / "full"
    manifest = read_manifest(folder)
    name = next(name for name, found in manifest.files.items() if name.endswith(".bin") and found.bytes)
    expected = "DAMAGED"
    if change == "damage":
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif change == "loss":
        (folder / name).unlink()
    elif change == "newer":
        part = msgspec.structs.replace(manifest.clickhouse, migration=manifest.clickhouse.migration + 1)
        write_manifest(folder, msgspec.structs.replace(manifest, clickhouse=part))
        expected = "NEWER_BACKUP"
    elif change == "table":
        rows = manifest.clickhouse.rows | {"some_rows": 1}
        part = msgspec.structs.replace(manifest.clickhouse, rows=rows)
        write_manifest(folder, msgspec.structs.replace(manifest, clickhouse=part))
        expected = "MISSING_TABLE"
    else:
        (folder / MANIFEST).unlink()
        expected = "NO_BACKUP"
    assert code_of(lambda: one.restore(replace=True)) == expected
    assert one.value("SELECT count() FROM events") == 1_000
    if change != "table":  # that one is found out half way, and may not be started on
        assert migrate_clickhouse(one.settings) == []


def test_a_restore_that_was_broken_off_is_begun_again_and_nothing_starts_before(
    one: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.backup()
    with monkeypatch.context() as broken:
        broken.setattr(registry, "restore_registry", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert code_of(lambda: one.restore(replace=True)) == "BAD_FOLDER"
    with pytest.raises(ClickHouseError, match="midstream restore"):
        migrate_clickhouse(one.settings)
    assert code_of(lambda: one.backup("another")) == "RESTORE_BEGUN"
    one.restore()  # no --replace: what is in the way is its own
    assert migrate_clickhouse(one.settings) == []
    assert one.value("SELECT count() FROM events") == 1_000


def test_a_restore_that_was_begun_is_ended_by_one_that_has_all_of_it(
    one: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a restore of the tables is not ended by one of the registry, and does not permit one."""
    one.backup()
    credentials = Credentials(one.settings)
    credentials.create("since")
    with monkeypatch.context() as broken:
        broken.setattr(restore, "replace_claims", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert code_of(lambda: one.restore(replace=True, parts=("clickhouse",))) == "BAD_FOLDER"
    assert code_of(lambda: one.restore(replace=True, parts=("registry",))) == "RESTORE_BEGUN"
    assert code_of(one.restore) == "NOT_EMPTY"
    assert credentials.token("since")
    credentials.close()
    one.restore(parts=("clickhouse",))
    assert migrate_clickhouse(one.settings) == []


def test_jobs_need_not_wait_after_a_restore(one: Deployment) -> None:
    """The copy of the registry was made while the backup kept jobs out."""
    one.backup()
    one.restore(replace=True)
    engine = open_engine(one.settings)
    Jobs(engine).create(Order("sync", "content", None), "", "a")
    assert Queue(engine).claim("somebody", 30.0) is not None
    engine.dispose()


def test_without_the_key_file_nothing_is_restored(one: Deployment, deploy: Deploy) -> None:
    one.backup(with_key=False)
    secret = key_path(one.settings).read_bytes()
    assert not (one.folder / "full" / "registry.key").exists()
    other = deploy("other")
    give_another_key(other)
    assert code_of(other.restore) == "NO_KEY"
    key_path(other.settings).write_bytes(secret)
    other.restore()
    assert other.value("SELECT count() FROM events") == 1_000


def test_another_key_file_is_noticed(one: Deployment, deploy: Deploy) -> None:
    one.backup(with_key=False)
    other = deploy("other")
    give_another_key(other)
    wanted = restore.Wanted(one.folder / "full", key=key_path(other.settings))
    assert code_of(lambda: restore.restore_backup(other.settings, wanted, lambda *_: None)) == "OTHER_KEY"


def test_who_was_erased_since_stays_erased(one: Deployment) -> None:
    """One is known by the registry that is replaced, another by Kafka alone."""
    engine = open_engine(one.settings)
    ErasedIds(engine).add(digest_of(one.settings, "long ago"), "user", "")
    one.backup()
    here, kafka = digest_of(one.settings, "here"), digest_of(one.settings, "in Kafka")
    ErasedIds(engine).add(here, "user", "")
    engine.dispose()
    one.kafka.erased = {kafka}
    done = one.restore(replace=True)
    assert done.erased == 2
    engine = open_engine(one.settings)
    known = {here, kafka, digest_of(one.settings, "long ago")}
    assert ErasedIds(engine).all("user") == known
    engine.dispose()
    # `store` reads these before it stores anything.
    assert {id_ for (id_,) in one.clickhouse.rows("SELECT id FROM dimension_rows WHERE type = 'erased'")} == known


def test_who_was_erased_stays_so_when_a_restore_is_broken_off(one: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry that knew it was replaced by then."""
    one.backup()
    engine = open_engine(one.settings)
    here = digest_of(one.settings, "here")
    ErasedIds(engine).add(here, "user", "")
    engine.dispose()
    with monkeypatch.context() as broken:
        broken.setattr(restore, "migrate_registry", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert code_of(lambda: one.restore(replace=True)) == "BAD_FOLDER"
    one.restore()
    engine = open_engine(one.settings)
    assert ErasedIds(engine).all("user") == {here}
    engine.dispose()
    assert not (one.settings.home / "restore-erased").exists()


def test_one_part_alone(one: Deployment) -> None:
    one.backup()
    credentials = Credentials(one.settings)
    credentials.create("since")
    one.restore(replace=True, parts=("clickhouse",))
    assert credentials.token("since")
    credentials.close()
    one.add_events(7_000, 2)
    one.restore(replace=True, parts=("registry",))
    assert one.value("SELECT count() FROM events") == 1_002
    credentials = Credentials(one.settings)
    assert credentials.list_all() == []
    credentials.close()


def test_it_waits_for_a_job_and_keeps_others_out(one: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(one.settings)
    queue, jobs = Queue(engine), Jobs(engine)
    jobs.create(Order("sync", "content", None), "", "a")
    claim = queue.claim("somebody", 30.0)
    assert claim is not None
    assert code_of(lambda: one.backup("refused", wait_s=0.0)) == "JOB_RUNS"
    queue.release(claim.job.id, "somebody")

    asked, claims = make.read_positions, []

    async def read_positions(settings: Settings) -> object:
        claims.append(queue.claim("another", 30.0))
        return await asked(settings)

    monkeypatch.setattr(make, "read_positions", read_positions)
    one.backup()
    assert claims == [None]
    assert queue.claim("another", 30.0) is not None  # it was given back
    engine.dispose()


def test_a_correction_that_was_broken_off_comes_first(one: Deployment) -> None:
    overlay = Overlay(one.clickhouse, is_cluster=False)
    overlay.show(Objects("content", False, ["c1"], ["new"], [""], ["found"]))
    assert code_of(one.backup) == "LEFT_OVER"
    overlay.clear()
    one.backup()


def test_tables_elsewhere_are_named_not_copied(one: Deployment) -> None:
    """As with a server, whose backups lie where it can reach: here its own disk."""
    wanted = restore.Wanted(one.folder / "full", replace=True)
    make.make_backup(one.settings, make.Wanted(one.folder / "full", "Disk('backups', '{id}')"), lambda *_: None)
    made = read_manifest(one.folder / "full")
    assert made.clickhouse.destination == f"Disk('backups', '{made.id}')"
    assert (one.settings.engine_backups_folder / made.id).is_dir()
    assert set(made.files) == {"registry.db"}
    assert code_of(lambda: restore.restore_backup(one.settings, wanted, lambda *_: None)) == "OTHER_CLICKHOUSE"
    server = one.settings.model_copy(update={"clickhouse": one.settings.clickhouse_dsn})
    shutil.rmtree(one.settings.engine_backups_folder / made.id / "data" / "midstream" / "learning_events")
    assert code_of(lambda: restore.restore_backup(server, wanted, lambda *_: None)) == "CLICKHOUSE_RESTORE"
