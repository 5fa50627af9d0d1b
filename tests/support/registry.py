"""Fixtures of tests that run with the registry in SQLite and in PostgreSQL; a conftest imports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.settings import Settings
from tests.support.postgres import create_database


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
