"""What one process has left half done, the next one brings to its end before anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.correct.corrector import Corrector
from midstream.correct.overlay import Overlay
from midstream.dimensions import DimensionType
from midstream.erase.events import EventEraser
from midstream.registry.engine import open_engine
from midstream.registry.migrate import migrate
from midstream.settings import Settings
from serve.finder import LazyClient
from serve.jobs.stored import StoredEvents
from tests.contract.clickhouse.test_correct import World, make_world, seen, some_events

USER = DimensionType.USER


@pytest.fixture
def world(clickhouse: ClickHouse) -> World:
    return make_world(clickhouse)


@pytest.fixture
def stored(settings: Settings, tmp_path: Path) -> Iterator[StoredEvents]:
    settings = settings.model_copy(update={"home": tmp_path})
    migrate(settings)
    engine = open_engine(settings)
    client = LazyClient(settings)
    yield StoredEvents(settings, client, engine)
    client.close()
    engine.dispose()


def correct(stored: StoredEvents, *ids: str) -> int:
    return stored.correct(USER, ids or None, lambda done, total: None, lambda: False)


def erase(stored: StoredEvents, id_: str) -> None:
    stored.erase(USER, id_, "d" * 24, lambda step, done, total: None, lambda: None)


class DiedError(Exception):
    """Where a process dies."""


def die(_: float) -> None:
    raise DiedError


def test_an_erasure_that_was_broken_off_goes_before_a_correction(world: World, stored: StoredEvents) -> None:
    some_events(world)
    before = world.clickhouse.rows("SELECT count(), uniqExact(mid) FROM events")
    Overlay(world.clickhouse, is_cluster=False).keep_back(1)
    world.clickhouse.command(
        "INSERT INTO learning_events SELECT * REPLACE (1 AS erasure) FROM learning_events WHERE actor_id = 'u-1'"
    )
    assert world.clickhouse.rows("SELECT count(), uniqExact(mid) FROM events") == before
    world.put("user", "u-1", {"state": "Goa"})
    assert correct(stored) > 0
    assert seen(world.clickhouse) == world.expected()
    assert world.clickhouse.rows("SELECT count() FROM learning_events WHERE erasure > 0") == [(0,)]


def test_a_correction_that_was_broken_off_goes_before_an_erasure(world: World, stored: StoredEvents) -> None:
    some_events(world)
    world.put("user", "u-1", {"state": "Goa"})
    with pytest.raises(DiedError):
        Corrector(world.clickhouse, "", sleep=die).correct(USER, ["u-1"], fill=False)
    erase(stored, "u-2")
    expected = [row for row, event in zip(world.expected(), world.events, strict=True) if event["actor_id"] != "u-2"]
    found = {row[0]: row for row in seen(world.clickhouse)}
    assert [found[row[0]] for row in expected] == expected
    assert len(found) == len(world.events)


def test_neither_goes_on_while_the_other_is_half_done(world: World) -> None:
    some_events(world)
    world.put("user", "u-1", {"state": "Goa"})
    with pytest.raises(DiedError):
        Corrector(world.clickhouse, "", sleep=die).correct(USER, ["u-1"], fill=False)
    with pytest.raises(RuntimeError, match="correction"):
        EventEraser(world.clickhouse, "", grace_s=0).recover()
    Corrector(world.clickhouse, "", grace_s=0).recover()
    Overlay(world.clickhouse, is_cluster=False).keep_back(1)
    with pytest.raises(RuntimeError, match="erasure"):
        Corrector(world.clickhouse, "", grace_s=0).correct(USER, ["u-1"], fill=False)


def test_late_dimensions_do_not_wait_for_a_long_sync(
    world: World, stored: StoredEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midstream.correct.corrector._CHUNK_IDS", 1)
    some_events(world)
    world.put("device", "d-3", {"ipLocation": {"state": "Goa"}})  # an event came before it
    world.put("user", "u-1", {"state": "Goa"})
    assert correct(stored, "u-1") == 2
    assert seen(world.clickhouse) == world.expected()


def test_what_does_not_answer_is_told(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, clickhouse="http://127.0.0.1:9/x", clickhouse_timeout_ms=1_000)
    migrate(settings)
    engine = open_engine(settings)
    with pytest.raises(ClickHouseError):
        correct(StoredEvents(settings, LazyClient(settings), engine))
    engine.dispose()
