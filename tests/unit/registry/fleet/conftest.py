"""The fleet's registry, in SQLite and in PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from midstream.registry.engine import open_engine
from midstream.registry.fleet.devices import Devices, Registration
from midstream.registry.fleet.models import Models, NewModel
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


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("MIDSTREAM_REGISTRY", raising=False)
    url = ""
    if request.param == "postgresql":
        url = create_database(request.getfixturevalue("postgres_url"), uuid4().hex, "migrated")
    return Settings(home=tmp_path / "home", registry=url)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    migrate(settings)
    opened = open_engine(settings)
    yield opened
    opened.dispose()


@pytest.fixture
def model(engine: Engine) -> NewModel:
    return Models(engine).create("hub-100", 10)


@pytest.fixture
def devices(engine: Engine) -> Devices:
    return Devices(engine)


@pytest.fixture
def device(devices: Devices, model: NewModel) -> str:
    return devices.register(Registration("SN-1", "1.0.0", model.hardware_key, mac="02:00:00:00:00:01")).id
