from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from midstream.registry.auth import Authenticator
from midstream.registry.credentials import Credentials
from midstream.registry.migrate import migrate
from midstream.settings import Settings
from tests.support.postgres import create_database, postgres, why_no_postgres


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The start of databases' URLs of a server that has a migrated database ``migrated``."""
    if reason := why_no_postgres():
        pytest.skip(reason)
    with postgres() as start:
        migrate(Settings(home=tmp_path_factory.mktemp("home"), registry=create_database(start, "migrated")))
        yield start


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("MIDSTREAM_REGISTRY", raising=False)
    return Settings(home=tmp_path / "home", registry="")


@pytest.fixture
def credentials(settings: Settings) -> Iterator[Credentials]:
    migrate(settings)
    opened = Credentials(settings)
    yield opened
    opened.close()


@pytest.fixture
async def authenticator(settings: Settings, credentials: Credentials) -> AsyncIterator[Authenticator]:
    opened = Authenticator(settings)
    yield opened
    opened.close()
