"""Copies of the registry, in SQLite and in PostgreSQL."""

import shutil
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, make_url

from midstream.backup import registry
from midstream.backup.errors import BackupError
from midstream.backup.registry import (
    check_registry,
    copy_key,
    copy_registry,
    fingerprint_of,
    key_fingerprint,
    restore_key,
    restore_registry,
)
from midstream.registry.credentials import Credentials
from midstream.registry.errors import UnknownCredential
from midstream.registry.keyfile import key_path
from midstream.registry.migrate import migrate
from midstream.settings import Settings


def token_of(settings: Settings, name: str, *, create: bool = False) -> str:
    credentials = Credentials(settings)
    try:
        return (credentials.create(name) if create else credentials.token(name)).token
    finally:
        credentials.close()


def test_a_restored_registry_knows_what_it_knew_at_the_backup(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    before = token_of(settings, "before", create=True)
    part = copy_registry(settings, tmp_path)
    assert part.rows["credentials"] == 1
    assert (tmp_path / part.file).stat().st_mode & 0o777 == 0o600
    token_of(settings, "since", create=True)
    engine.dispose()
    assert check_registry(settings, part)["credentials"] == 2
    restore_registry(settings, tmp_path, part)
    assert token_of(settings, "before") == before
    with pytest.raises(UnknownCredential):
        token_of(settings, "since")
    restore_registry(settings, tmp_path, part)  # begun again
    assert check_registry(settings, part)["credentials"] == 1


def test_a_copy_of_a_later_schema_or_another_database_is_refused(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    part = copy_registry(settings, tmp_path)
    later = msgspec.structs.replace(part, revision="9999")
    other = msgspec.structs.replace(part, kind="postgresql" if part.kind == "sqlite" else "sqlite")
    for wrong, code in ((later, "NEWER_BACKUP"), (other, "OTHER_REGISTRY")):
        with pytest.raises(BackupError) as caught:
            check_registry(settings, wrong)
        assert caught.value.code == code


def test_a_damaged_sqlite_file_is_never_put_in_place(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", registry="")
    migrate(settings)
    token_of(settings, "kept", create=True)
    part = copy_registry(settings, tmp_path)
    content = bytearray((tmp_path / part.file).read_bytes())
    content[len(content) // 2 :] = b"\0" * (len(content) - len(content) // 2)
    (tmp_path / part.file).write_bytes(content)
    with pytest.raises(BackupError) as caught:
        restore_registry(settings, tmp_path, part)
    assert caught.value.code == "REGISTRY_BACKUP"
    assert token_of(settings, "kept")


def test_a_tool_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(registry, "_DEBIAN", tmp_path)
    with pytest.raises(BackupError, match="pg_dump") as caught:
        registry._find_tool("pg_dump")
    assert caught.value.code == "NO_TOOL"


def test_the_key_file_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    one, other = Settings(home=tmp_path / "one", registry=""), Settings(home=tmp_path / "other", registry="")
    migrate(one)
    migrate(other)
    secret = key_path(one).read_bytes()
    assert key_fingerprint(one) == fingerprint_of(secret) != key_fingerprint(other)
    assert fingerprint_of(b"no key") == ""
    assert key_fingerprint(one).encode() not in secret
    copy_key(one, tmp_path)
    assert (tmp_path / "registry.key").stat().st_mode & 0o777 == 0o600
    restore_key(other, secret)
    assert key_fingerprint(other) == key_fingerprint(one)
    assert key_path(other).stat().st_mode & 0o777 == 0o600


def test_tools_of_postgresql_connect_as_the_driver_does() -> None:
    url = make_url("postgresql+psycopg://u:p@h:5433/db?sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k")
    assert registry._postgres_environment(url) == {
        "PGHOST": "h",
        "PGPORT": "5433",
        "PGUSER": "u",
        "PGPASSWORD": "p",
        "PGDATABASE": "db",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca",
        "PGSSLCERT": "/c",
        "PGSSLKEY": "/k",
    }
