"""``midstream dimensions check``: a source is read, and nothing else happens."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from midstream.cli import cli

SOURCES = '[user]\nkind = "file"\npath = "users.jsonl"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sources.toml").write_text(SOURCES)
    monkeypatch.setenv("MIDSTREAM_DIMENSION_SOURCES", str(tmp_path / "sources.toml"))
    monkeypatch.setenv("MIDSTREAM_HOME", str(tmp_path / "home"))
    # Whoever tries to publish fails.
    monkeypatch.setenv("MIDSTREAM_KAFKA", "127.0.0.1:1")
    return tmp_path


@pytest.fixture(autouse=True)
def _read_anew() -> None:
    from midstream.settings import get_settings

    get_settings.cache_clear()


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dimensions", "check", *arguments])


def test_what_a_source_gives(folder: Path) -> None:
    (folder / "users.jsonl").write_text("".join(f'{{"id":"u{n}","attributes":{{}}}}\n' for n in range(12)))
    result = check("user")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == ("12 can be taken, 0 refused\nfirst ids: u0, u1, u2, u3, u4, u5, u6, u7, u8, u9\n")
    assert not (folder / "home").exists()


def test_rows_that_cannot_be_taken_are_exit_1_and_named(folder: Path) -> None:
    (folder / "users.jsonl").write_text('{"id":"a","attributes":{}}\n' + '{"id":"b","attributes":[]}\n' * 150)
    result = check("user", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["accepted"], found["refused"], len(found["errors"]), found["ids"]) == (1, 150, 100, ["a"])
    assert found["errors"][0]["place"] == "users.jsonl, line 2"
    assert "users.jsonl, line 2: NOT_AN_OBJECT: attributes are a JSON object\n" in result.stderr
    assert "and 50 more\n" in result.stderr


def test_a_source_that_cannot_be_read_is_exit_1(folder: Path) -> None:
    result = check("user")
    assert result.exit_code == 1
    assert "SOURCE_UNAVAILABLE: " in result.stderr
    assert "Traceback" not in result.output


def test_no_source_is_exit_1(folder: Path) -> None:
    result = check("device")
    assert result.exit_code == 1
    assert "no source is configured for device" in result.stderr


def test_a_file_of_sources_that_is_none_is_exit_1(folder: Path) -> None:
    (folder / "sources.toml").write_text(SOURCES + "x = 1\ny = 2\n")
    result = check("user")
    assert result.exit_code == 1
    assert "user.x: Extra inputs are not permitted" in result.stderr
    assert "user.y: Extra inputs are not permitted" in result.stderr


def test_an_unknown_type_is_wrong_usage(folder: Path) -> None:
    assert check("planet").exit_code == 2
