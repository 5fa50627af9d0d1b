import contextlib
import multiprocessing
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from midstream.registry.credentials import Credentials
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryError, RegistryUnavailable
from midstream.registry.keyfile import key_path
from midstream.registry.migrate import migrate, revisions
from midstream.registry.models import Base
from midstream.settings import Settings


def test_twice_is_as_once(settings: Settings) -> None:
    migrate(settings)
    key = key_path(settings).read_bytes()
    migrate(settings)
    assert key_path(settings).read_bytes() == key


def test_key_file_is_private(settings: Settings) -> None:
    migrate(settings)
    assert stat.S_IMODE(key_path(settings).stat().st_mode) == 0o600


def test_only_a_migration_makes_the_file_which_is_private(settings: Settings) -> None:
    file = settings.home / "registry.db"
    file.parent.mkdir()
    with pytest.raises(RegistryUnavailable):
        revisions(settings, wait_ms=100)
    with pytest.raises(RegistryUnavailable):
        Credentials(settings).list_all()
    assert not file.exists()
    migrate(settings)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_look_at_the_revision_waits_for_no_writer(settings: Settings) -> None:
    migrate(settings)
    with contextlib.closing(sqlite3.connect(settings.home / "registry.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        found, newest = revisions(settings, wait_ms=100)
    assert found == newest


def test_migrations_make_what_the_models_say(settings: Settings) -> None:
    migrate(settings)
    engine = open_engine(settings)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_file_is_in_wal_mode(settings: Settings) -> None:
    migrate(settings)
    with sqlite3.connect(settings.home / "registry.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def _migrate_and_create(home: str, name: str) -> None:
    settings = Settings(home=Path(home), registry="")
    migrate(settings)
    credentials = Credentials(settings)
    credentials.create(name)
    credentials.close()


def test_several_at_once_from_nothing(settings: Settings) -> None:
    context = multiprocessing.get_context("spawn")
    names = [f"app-{number}" for number in range(4)]
    processes = [context.Process(target=_migrate_and_create, args=(str(settings.home), name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(names)
    credentials = Credentials(settings)
    assert [found.name for found in credentials.list_all()] == names
    for name in names:
        assert credentials.token(name).key == name  # one key file decrypts what each encrypted
    credentials.close()


def test_waits_for_a_lock_that_is_released(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    holder = sqlite3.connect(settings.home / "registry.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, lambda: holder.execute("ROLLBACK")).start()
    migrate(settings)
    holder.close()


def test_a_lock_that_stays_is_named(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    holder = sqlite3.connect(settings.home / "registry.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RegistryUnavailable, match="locked"):
        migrate(settings, wait_ms=300)
    holder.close()


def test_lost_key_file_is_not_replaced_while_secrets_need_it(settings: Settings, credentials: Credentials) -> None:
    credentials.create("app")
    key_path(settings).unlink()
    with pytest.raises(RegistryError, match="restore"):
        migrate(settings)
    assert not key_path(settings).exists()


def set_revision(settings: Settings, revision: str) -> None:
    with sqlite3.connect(settings.home / "registry.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_a_newer_registry_is_left_as_it_is(settings: Settings, credentials: Credentials) -> None:
    """A version that was rolled back starts: what the newer one has added is none of its business."""
    credentials.create("app")
    with sqlite3.connect(settings.home / "registry.db") as connection:
        connection.execute("CREATE TABLE of_a_newer_version (id INTEGER)")
        connection.execute("ALTER TABLE credentials ADD COLUMN colour VARCHAR(8)")
    set_revision(settings, "9999")
    migrate(settings)
    with sqlite3.connect(settings.home / "registry.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    credentials.create("other")
    assert {one.name for one in credentials.list_all()} == {"app", "other"}


@pytest.mark.parametrize("revision", ["0000", "8c1f02", "99999"])
def test_a_registry_of_no_known_version_is_refused(settings: Settings, credentials: Credentials, revision: str) -> None:
    set_revision(settings, revision)
    with pytest.raises(RegistryError, match="another version"):
        migrate(settings)


@pytest.mark.parametrize("url", ["sqlite://", "mysql://host/db", "no url", "postgresql+nodriver://h/d"])
def test_unusable_url_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(RegistryError, match="MIDSTREAM_REGISTRY"):
        migrate(Settings(home=tmp_path, registry=url))


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryUnavailable, match="cannot be created"):
        migrate(Settings(home=tmp_path, registry=f"sqlite:///{tmp_path}/file/registry.db"))
