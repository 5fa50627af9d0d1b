"""ClickHouse with our migrations, in a database of its own for each test, on the engine of tests/contract/engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from midstream.clickhouse.client import ClickHouse, open_client
from midstream.clickhouse.migrate import migrate
from midstream.settings import Settings
from tests.contract.engine.conftest import EngineProcess, engine

__all__ = ["engine"]


@pytest.fixture
def settings(engine: EngineProcess) -> Iterator[Settings]:
    """Settings that name a fresh, empty database."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    # Rows of tests have fixed times, which a retention would expire one day.
    yield Settings(clickhouse=f"{engine.url}/{database}", retention_operational_days=0)
    engine.query(f"DROP DATABASE IF EXISTS {database} SYNC")


@pytest.fixture
def clickhouse(settings: Settings) -> Iterator[ClickHouse]:
    """A client of that database after all migrations."""
    migrate(settings)
    client = open_client(settings)
    yield client
    client.close()
