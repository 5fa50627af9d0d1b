"""Configured sources as the steps know them."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstream.dimensions import DimensionType
from midstream.settings import Settings
from midstream.sources.errors import SourceCode, SourceError
from serve.jobs.errors import FailedError, StoppedError, TryAgainError, Why
from serve.jobs.source import ConfiguredSources, as_ours

USER = DimensionType.USER


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "users.jsonl").write_text(
        '{"id":"u1","attributes":{"a":1},"version":3}\n{"id":"u2"}\n{"id":"u3","attributes":{},"version":4}\n'
    )
    config = tmp_path / "sources.toml"
    config.write_text(f'[user]\nkind = "file"\npath = "{tmp_path}/users.jsonl"\n')
    return Settings(home=tmp_path / "home", dimension_sources=str(config))


def test_what_a_file_gives(settings: Settings) -> None:
    sources = ConfiguredSources(settings)
    assert sources.has(USER)
    assert not sources.has(DimensionType.CONTENT)
    told: list[int] = []
    staged = sources.read(USER, None, None, told.append)
    assert (staged.rows, staged.refused, staged.whole) == (2, 1, True)
    assert told
    (refusal,) = staged.refusals()
    assert set(refusal) == {"place", "code", "message"}
    assert staged.add_gone(
        [("u2", 5, False), ("u1", 1, False), ("gone", 9, False), ("before", 9, True)], force=False
    ) == (1, 0)
    rows = [(row.id, row.deleted) for block in staged.blocks() for row in block]
    assert rows == [("u1", False), ("u3", False), ("gone", True)]
    staged.close()


def test_some_ids_are_answered(settings: Settings) -> None:
    staged = ConfiguredSources(settings).read(USER, ["u1", "u9"], None, lambda _: None)
    assert staged.answers() == {"u1": True, "u9": False}
    staged.close()


def test_a_source_that_has_nearly_nothing_is_not_taken(settings: Settings) -> None:
    known = [(f"k{number}", 1, False) for number in range(100)]
    staged = ConfiguredSources(settings).read(USER, None, None, lambda _: None)
    with pytest.raises(FailedError, match="SOURCE_SHRUNK"):
        staged.add_gone(known, force=False)
    staged.close()
    staged = ConfiguredSources(settings).read(USER, None, None, lambda _: None)
    assert staged.add_gone(known, force=True) == (100, 0)
    staged.close()


def test_a_stop_ends_the_read(settings: Settings) -> None:
    def stop(_: int) -> None:
        raise StoppedError(Why.CANCELLED)

    with pytest.raises(StoppedError):
        ConfiguredSources(settings).read(USER, None, None, stop)


def test_a_configuration_that_is_none_fails_and_is_read_anew(settings: Settings) -> None:
    sources = ConfiguredSources(settings)
    config = Path(settings.dimension_sources)
    good = config.read_text()
    config.write_text("[user")
    with pytest.raises(FailedError, match="SOURCE_CONFIG"):
        sources.has(USER)
    config.write_text("")
    assert not sources.has(USER)
    with pytest.raises(FailedError, match="no source any more"):
        sources.read(USER, None, None, lambda _: None)
    config.write_text(good)
    assert sources.has(USER)


def test_a_file_that_is_gone_may_come_back(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "users.jsonl").unlink()
    with pytest.raises(TryAgainError, match="SOURCE_UNAVAILABLE"):
        ConfiguredSources(settings).read(USER, None, None, lambda _: None)


def test_without_a_setting_no_type_has_a_source(tmp_path: Path) -> None:
    assert not ConfiguredSources(Settings(home=tmp_path, dimension_sources="")).has(USER)


@pytest.mark.parametrize("code", SourceCode)
def test_every_error_of_a_source_has_an_answer(code: SourceCode) -> None:
    error = as_ours(SourceError(code, "words"))
    assert str(error) == f"{code}: words"
    passing = {"SOURCE_UNAVAILABLE", "SOURCE_TIMEOUT", "SOURCE_CUT", "SOURCE_CHANGED", "STAGING_FAILED"}
    assert isinstance(error, TryAgainError) == (code in passing)
