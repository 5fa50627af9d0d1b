"""The processes that build days: what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstream.settings import load_settings
from serve.exhaust.days.pool import Builders


async def test_a_builder_reads_a_settings_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn, home = tmp_path / "clickhouse", tmp_path / "home"
    dsn.write_text("http://reader:c4nary-7f31@ch:8123/midstream")
    monkeypatch.delenv("MIDSTREAM_CLICKHOUSE", raising=False)
    monkeypatch.setenv("MIDSTREAM_CLICKHOUSE_FILE", str(dsn))
    monkeypatch.setenv("MIDSTREAM_LOG_LEVEL", "error")
    builders = Builders(load_settings().model_copy(update={"home": home}))
    for name, value in builders._environ.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.clickhouse, settings.home) == (dsn.read_text(), home)
    assert "c4nary" not in str(builders._environ)
