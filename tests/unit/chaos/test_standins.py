"""What stand-ins share: triggers, notes, what was dropped; and the broker's second listener."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.broker import server_properties
from midstream.settings import Settings
from tests.chaos.standins import signs
from tests.chaos.standins.broker import with_listeners


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAOS_FOLDER", str(tmp_path))
    monkeypatch.setenv("CHAOS_DOES", "freeze,no_lease")
    monkeypatch.setenv("MIDSTREAM_WORKER_ID", "store-1")


def test_a_trigger_is_used_up(tmp_path: Path) -> None:
    assert signs.does() == {"freeze", "no_lease"}
    assert not signs.take_trigger()
    signs.trigger_of(tmp_path, "store-0").touch()
    assert not signs.take_trigger()
    signs.trigger_of(tmp_path, "store-1").touch()
    assert signs.take_trigger()
    assert not signs.take_trigger()
    signs.leave_note()
    assert int(signs.note_of(tmp_path, "store-1").read_text()) > 0


def test_what_was_dropped_counts_once(tmp_path: Path) -> None:
    assert signs.read_dropped(tmp_path) == []
    for _ in range(2):
        signs.drop("m", "b", 3)
    signs.drop("m", "b", 4)
    assert [entry["event_index"] for entry in signs.read_dropped(tmp_path)] == [3, 4]


def test_one_in_so_many_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(map(signs.is_dropped, range(100_000))) == 10
    monkeypatch.setenv(signs.DROP_ONE_IN, "100")
    assert sum(map(signs.is_dropped, range(100_000))) == 1_000


def test_the_brokers_listeners(tmp_path: Path) -> None:
    own = server_properties(Settings.model_validate({"home": tmp_path}), "data")
    text = with_listeners(own, "WORKERS:21000:22000,COLLECTOR:21001:22001")
    changed = dict(line.split("=", 1) for line in text.splitlines())
    before = dict(line.split("=", 1) for line in own.splitlines())
    more = {key: changed[key].removeprefix(before[key]) for key in changed if changed[key] != before[key]}
    assert more == {
        "listeners": ",WORKERS://127.0.0.1:21000,COLLECTOR://127.0.0.1:21001",
        "advertised.listeners": ",WORKERS://127.0.0.1:22000,COLLECTOR://127.0.0.1:22001",
        "listener.security.protocol.map": ",WORKERS:PLAINTEXT,COLLECTOR:PLAINTEXT",
    }
