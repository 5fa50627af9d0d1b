"""What several contracts are tested with."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from midstream.clickhouse.migrate import migrate as migrate_clickhouse
from midstream.registry.migrate import migrate as migrate_registry
from midstream.settings import Settings
from tests.contract.engine.conftest import EngineProcess


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a registry that holds nothing; to be copied."""
    home = tmp_path_factory.mktemp("registry")
    migrate_registry(Settings(home=home))
    return home


@pytest.fixture(scope="module")
def database(engine: EngineProcess) -> Iterator[str]:
    """Name of a database with all tables, for the tests of a module; these empty the tables that they use."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    migrate_clickhouse(Settings(clickhouse=f"{engine.url}/{name}"))
    yield name
    engine.query(f"DROP DATABASE IF EXISTS {name} SYNC")
