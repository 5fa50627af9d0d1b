from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from midstream.registry.auth import Authenticator
from midstream.registry.credentials import Credentials
from midstream.registry.migrate import migrate
from midstream.settings import Settings


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
