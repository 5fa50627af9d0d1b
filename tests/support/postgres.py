"""A PostgreSQL server for tests, on a free port, in a temporary folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.waiting import wait_until

_STOP_S = 20


def why_no_postgres() -> str:
    """Return why no server can be started here, "" when one can."""
    if find_spec("psycopg") is None:
        return "PostgreSQL's driver is not installed: it is in the extra `postgres`"
    missing = [name for name in ("initdb", "postgres") if _find(name) is None]
    if missing:
        return f"PostgreSQL is not installed: no {' and no '.join(missing)} in PATH or where Debian has them"
    if os.geteuid() == 0 and not _user():
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def _find(name: str) -> str | None:
    """Return the path of a program: in PATH, or of the newest version that Debian's packages hold beside it."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


def _user() -> str | None:
    """Return whom to run it as, None for the user of the tests: it refuses root."""
    if os.geteuid() != 0:
        return None
    return next((found.pw_name for found in pwd.getpwall() if found.pw_name == "postgres"), None)


@contextmanager
def postgres(certificate: bytes | None = None) -> Iterator[str]:
    """Run a server; yield the start of its databases' URLs. ``certificate``: PEM of key and certificates, for TLS."""
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="midstream-postgres-"))  # pytest's own is closed to other users
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        initdb = [
            str(_find("initdb")),
            "-D",
            str(data),
            "-U",
            "midstream",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, capture_output=True, user=user, cwd=folder)
        (port,) = free_ports(1)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        if certificate is not None:
            own = folder / "server.pem"
            own.touch(0o600)
            own.write_bytes(certificate)
            if user is not None:
                shutil.chown(own, user)
            options |= {"ssl": "on", "ssl_cert_file": str(own), "ssl_key_file": str(own)}
        command = [str(_find("postgres")), "-D", str(data), "-p", str(port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
        try:
            address = f"midstream@127.0.0.1:{port}"
            wait_until("PostgreSQL answers", lambda: _answers(f"postgresql://{address}/postgres"))
            yield f"postgresql+psycopg://{address}/"
        finally:
            server.terminate()
            try:
                server.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


def create_database(start: str, name: str, template: str = "template0") -> str:
    """Create a database of a server, a copy of ``template``; return its SQLAlchemy URL."""
    import psycopg

    with psycopg.connect(start.replace("+psycopg", "") + "postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')  # type: ignore[call-overload]
    return start + name
