"""What docs/dimension-sources.md says of sources is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from midstream.sources.config import FileConfig, HttpConfig, SqlConfig, read_config
from midstream.sources.errors import SOURCE_CODES, SourceCode

PAGE = (Path(__file__).parents[3] / "docs" / "dimension-sources.md").read_text("utf-8")


def test_every_code_is_documented() -> None:
    assert set(SOURCE_CODES) == set(SourceCode)
    rows = [f"| `{code}` | {doc.meaning} | {doc.operator} |" for code, doc in SOURCE_CODES.items()]
    assert "\n".join(rows) in PAGE


def test_the_example_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_DB_PASSWORD", "x")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "content-token").write_text("y")
    [example] = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    (tmp_path / "sources.toml").write_text(example)
    assert set(read_config(tmp_path / "sources.toml")) == {"user", "content", "location"}


@pytest.mark.parametrize("config", [FileConfig, HttpConfig, SqlConfig])
def test_every_key_is_documented(config: type[BaseModel]) -> None:
    assert [name for name in config.model_fields if f"`{name}`" not in PAGE] == []


def test_every_style_of_paging_is_documented_as_it_can_be_written(tmp_path: Path) -> None:
    styles = re.findall(r"^\| `(\{ style = .*?\})` \|", PAGE, re.M)
    assert len(styles) == 4
    for style in styles:
        text = f'[user]\nkind = "http"\nurl = "http://h/x"\npaging = {style}\n'
        (tmp_path / "sources.toml").write_text(text)
        read_config(tmp_path / "sources.toml")
