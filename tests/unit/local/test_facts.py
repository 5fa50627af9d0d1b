"""What the launcher tells: on the terminal and in ready.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.local.home import Home
from deploy.local.launcher import _announcement
from deploy.local.pipeline import facts_of, without_credentials
from midstream.settings import Settings


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("http://me:secret@c:8123/midstream", "http://c:8123/midstream"),
        ("https://me:s%40cret@c.example", "https://c.example:8443/midstream"),
        ("http://secret@[::1]:9000/d%20b", "http://[::1]:9000/d%20b"),
        ("http://127.0.0.1:8123/midstream", "http://127.0.0.1:8123/midstream"),
    ],
)
def test_credentials_of_clickhouse_are_told_to_nobody(tmp_path: Path, dsn: str, shown: str) -> None:
    settings = Settings(home=tmp_path, clickhouse=dsn)
    facts = facts_of(settings, Home(tmp_path))
    assert facts["clickhouse"] == shown == without_credentials(shown)
    announcement = _announcement(settings, facts, 1.0)
    assert shown in announcement
    for told in (json.dumps(facts), announcement):
        assert "cret" not in told
        assert "me:" not in told


def test_the_local_clickhouse_is_told_as_it_is(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, clickhouse="", local_clickhouse_port=18123)
    assert facts_of(settings, Home(tmp_path))["clickhouse"] == settings.clickhouse_dsn
