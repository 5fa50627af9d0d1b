"""The academy that the demo founds in the registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.local.demo.exercises import LEARNERS
from deploy.local.demo.school import school_of
from deploy.local.demo.target import DemoError
from midstream.registry.academies.academies import Academies
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.users import Users
from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path)
    migrate(made)
    return made


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    opened = open_engine(settings)
    yield opened
    opened.dispose()


def test_each_run_has_an_academy_of_its_own_and_the_same_learners(settings: Settings, engine: Engine) -> None:
    Academies(engine).create("a platform's own", 7)
    with school_of(settings, "one") as first, school_of(settings, "two") as second:
        pass
    assert second.academy == first.academy + 1 > 2**40
    assert list(second.users) == list(first.users)
    assert len(set(first.users)) == LEARNERS
    assert [one.name for one in Academies(engine).page(limit=9)] == ["a platform's own", "Demo one", "Demo two"]
    assert len(Users(engine).page(limit=99)) == LEARNERS + 1


def test_the_platforms_token_ends_with_the_run(settings: Settings, engine: Engine) -> None:
    with school_of(settings, "one") as school:
        ((platform, academy, capability),) = Grants(engine).list(limit=9)
        assert (academy, capability) == (school.academy, "crud_telemetry")
        assert platform not in school.users
        assert [token.state for token in Users(engine).tokens(platform)] == ["active"]
    assert [token.state for token in Users(engine).tokens(platform)] == ["revoked"]


def test_without_a_registry_the_demo_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(DemoError, match="the registry gives no academy: "),
        school_of(Settings(home=tmp_path / "nothing"), "one"),
    ):
        pass
