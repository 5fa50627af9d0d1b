"""The registry in a PostgreSQL that is reached by TLS, as docs/connections.md says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy import text

from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.migrate import migrate, revisions
from midstream.settings import Settings
from tests.support.postgres import create_database, postgres, why_no_postgres

pytestmark = pytest.mark.skipif(bool(why_no_postgres()), reason=why_no_postgres())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        ca = trustme.CA()
        ca.cert_pem.write_to_path(folder / f"{name}.pem")
        ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / f"{name}-server.pem")
    return folder


@pytest.fixture(scope="module")
def start(files: Path) -> Iterator[str]:
    with postgres((files / "ca-server.pem").read_bytes()) as url:
        create_database(url, "registry")
        yield url


def settings(home: Path, start: str, ca: Path) -> Settings:
    return Settings(home=home, registry=f"{start}registry?sslmode=verify-full&sslrootcert={ca}")


def test_the_registry_by_tls(tmp_path: Path, start: str, files: Path) -> None:
    found = settings(tmp_path / "home", start, files / "ca.pem")
    migrate(found)
    present, newest = revisions(found, wait_ms=5_000)
    assert present == newest != ""
    engine = open_engine(found)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")) is True
    engine.dispose()


def test_a_certificate_of_another_ca_is_refused(tmp_path: Path, start: str, files: Path) -> None:
    with pytest.raises(RegistryUnavailable, match="certificate verify failed"):
        migrate(settings(tmp_path / "home", start, files / "other.pem"), wait_ms=2_000)
