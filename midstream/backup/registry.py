"""The registry and its key file: copied, looked at, put back. SQLite by its online backup, PostgreSQL by pg_dump."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, func, inspect, select, text

from midstream.backup.errors import BackupError
from midstream.backup.manifest import RegistryPart
from midstream.registry.engine import open_engine, registry_url, unavailable_as_such
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.keyfile import derive_key, key_path
from midstream.registry.models import Base
from midstream.settings import Settings

KEY_FILE = "registry.key"

_FINGERPRINT = b"midstream backup key fingerprint v1"
_FINGERPRINT_BYTES = 8
_TIMEOUT_S = 3_600.0
_PAGES = 1_000
_IN_QUERY = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl")
_DEBIAN = Path("/usr/lib/postgresql")
_BOOKKEEPING = frozenset({"alembic_version", "sync_repair", "admin_log"})
"""Tables that have rows although nobody has done anything: making the registry is noted, too."""

_TRIGGER_FUNCTION = "admin_log_refuse"
"""The one thing of our migrations that does not go with its table."""


def key_fingerprint(settings: Settings) -> str:
    """Return what tells key files apart and says nothing of them.

    Raises:
        RegistryUnavailable: there is none.
    """
    return derive_key(settings, _FINGERPRINT)[:_FINGERPRINT_BYTES].hex()


def fingerprint_of(secret: bytes) -> str:
    """Return the fingerprint of a key file's content; "" if it is none."""
    with tempfile.TemporaryDirectory(prefix="midstream-key-") as folder:
        home = Settings.model_construct(home=Path(folder))
        write_durably(key_path(home), secret)
        try:
            return key_fingerprint(home)
        except RegistryUnavailable:
            return ""


def copy_key(settings: Settings, folder: Path) -> None:
    """Copy the key file into a backup, which is secret from then on."""
    write_durably(folder / KEY_FILE, key_path(settings).read_bytes())


def restore_key(settings: Settings, secret: bytes) -> None:
    """Put a key file in its place."""
    path = key_path(settings)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(path, secret)


def copy_registry(settings: Settings, folder: Path) -> RegistryPart:
    """Copy the registry, as of one moment, into a backup.

    Raises:
        BackupError: ``NO_TOOL``, ``REGISTRY_BACKUP``.
        RegistryUnavailable: it is away.
    """
    engine = open_engine(settings)
    try:
        kind = engine.dialect.name
        if kind == "sqlite":
            file = "registry.db"
            _copy_sqlite(Path(str(registry_url(settings).database)), folder / file)
        else:
            file = "registry.dump"
            _run_postgres(
                settings, ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file", str(folder / file)]
            )
            (folder / file).chmod(0o600)
        return RegistryPart(kind, file, _revision(engine), _counts(engine))
    finally:
        engine.dispose()


def restore_registry(settings: Settings, folder: Path, part: RegistryPart) -> None:
    """Put a copy in the place of the registry; done again, it is the same.

    Raises:
        BackupError: ``NO_TOOL``, ``REGISTRY_RESTORE``.
    """
    copy = folder / part.file
    if part.kind == "sqlite":
        target = Path(str(registry_url(settings).database))
        new = target.with_name(f"{target.name}.restoring")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy_sqlite(copy, new)
        # What a process that was killed left to be written belongs to the registry that goes.
        for name in ("-wal", "-shm"):
            target.with_name(target.name + name).unlink(missing_ok=True)
        new.replace(target)
        return
    _drop_tables(settings)  # those of a later schema, too, which the copy does not know
    options = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]
    _run_postgres(settings, ["pg_restore", *options, "--dbname", "", str(copy)])


def check_registry(settings: Settings, part: RegistryPart) -> dict[str, int]:
    """See that a copy can be restored here; return the tables of the present registry that have rows, and how many.

    Raises:
        BackupError: ``OTHER_REGISTRY``, ``NEWER_BACKUP``, ``NO_TOOL``.
        RegistryUnavailable: PostgreSQL is away.
    """
    kind = registry_url(settings).get_backend_name()
    if kind != part.kind:
        raise BackupError("OTHER_REGISTRY", f"the backup's registry is of {part.kind}, MIDSTREAM_REGISTRY names {kind}")
    config = Config()
    config.set_main_option("script_location", "midstream.registry:migrations")
    if part.revision not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
        raise BackupError(
            "NEWER_BACKUP", f"the backup's registry has the schema {part.revision}, which this program does not know"
        )
    if kind == "sqlite" and not Path(str(registry_url(settings).database)).exists():
        return {}
    if kind == "postgresql":
        _find_tool("pg_restore")
    engine = open_engine(settings)
    try:
        return {name: rows for name, rows in _counts(engine).items() if rows}
    finally:
        engine.dispose()


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: of one moment, while others write."""
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as here,
            closing(sqlite3.connect(target)) as there,
        ):
            here.backup(there, pages=_PAGES)
            damage = there.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise BackupError("REGISTRY_BACKUP", f"{source} is damaged: {damage}")
    except sqlite3.Error as error:
        raise BackupError("REGISTRY_BACKUP", f"{source} cannot be copied to {target}: {error}") from None
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _drop_tables(settings: Settings) -> None:
    engine = open_engine(settings)
    try:
        with unavailable_as_such(), engine.begin() as connection:
            for name in set(inspect(connection).get_table_names()) & {*Base.metadata.tables, "alembic_version"}:
                connection.execute(text(f'DROP TABLE "{name}" CASCADE'))
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"DROP FUNCTION IF EXISTS {_TRIGGER_FUNCTION}()"))
    finally:
        engine.dispose()


def _counts(engine: Engine) -> dict[str, int]:
    """Return the rows of each of our tables that is there."""
    with unavailable_as_such(), engine.connect() as connection:
        there = set(inspect(connection).get_table_names())
        names = sorted(there & (set(Base.metadata.tables) - _BOOKKEEPING))
        counting = {name: select(func.count()).select_from(Base.metadata.tables[name]) for name in names}
        return {name: connection.scalar(query) or 0 for name, query in counting.items()}


def _revision(engine: Engine) -> str:
    with unavailable_as_such(), engine.connect() as connection:
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")) or "")


def _run_postgres(settings: Settings, command: list[str]) -> None:
    """Run a tool of PostgreSQL against the registry; the password travels in its environment."""
    url = registry_url(settings)
    environment = dict(os.environ) | _postgres_environment(url)
    arguments = [str(url.database) if one == "" else one for one in command[1:]]
    code = "REGISTRY_BACKUP" if command[0] == "pg_dump" else "REGISTRY_RESTORE"
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [_find_tool(command[0]), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackupError(code, f"{command[0]} did not end: {error}") from None
    if done.returncode:
        raise BackupError(code, f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-1_000:]}")


def _postgres_environment(url: URL) -> dict[str, str]:
    """Return the variables by which PostgreSQL's tools connect as the registry's driver does."""
    database = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        **{f"PG{name.upper()}": url.query[name] for name in _IN_QUERY if name in url.query},
    }
    return {
        name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in database.items() if value
    }


def _find_tool(name: str) -> str:
    """Return the path of a tool: in PATH, or of the newest version that Debian's packages hold beside it."""
    installed = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    found = shutil.which(name) or (str(installed[-1]) if installed else "")
    if not found:
        raise BackupError(
            "NO_TOOL", f"{name} is needed for a registry in PostgreSQL: install its client (Debian: postgresql-client)"
        )
    return found


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
