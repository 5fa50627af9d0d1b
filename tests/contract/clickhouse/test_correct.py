"""Corrections of stored events on the real engine, against a model in Python."""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from midstream.clickhouse.client import ClickHouse, ClickHouseError
from midstream.correct.corrector import Corrector, StoppedError
from midstream.correct.expressions import COPIES
from midstream.correct.overlay import Objects, Overlay, TakenOverError
from midstream.dimension_location import derive_location
from midstream.dimensions import DimensionType

CONTENT, DEVICE, ORGANISATION, USER = (DimensionType(name) for name in ("content", "device", "organisation", "user"))
SHOWN = ("mid", "user", "device", "content", "collection", "organisation", "batch", "location", "flags")
ODD = 'Ka/r\\na "ta"\n\t\u0001 \u00e9\U0001f600'


@dataclass
class World:
    """Events as they are stored, and the objects they speak of."""

    clickhouse: ClickHouse
    events: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[tuple[str, str], tuple[str, int, bool]] = field(default_factory=dict)

    def put(self, type_: str, id_: str, attributes: dict[str, Any] | None, stored_at_ms: int = 1) -> None:
        """Write an object's row; None: it is deleted."""
        version = self.objects.get((type_, id_), ("", 0, False))[1] + 1
        text = json.dumps(attributes or {}, separators=(",", ":"), ensure_ascii=False)
        self.objects[type_, id_] = (text, version, attributes is None)
        row = {"type": type_, "id": id_, "attributes": text, "version": version, "deleted": attributes is None}
        row |= {"updated_at": 0, "stored_at": stored_at_ms}
        insert(self.clickhouse, "dimension_rows", [row])

    def copy(self, type_: str, id_: str) -> tuple[str, str]:
        """Return an object's copy and state."""
        if not id_:
            return "", ""
        text, _, deleted = self.objects.get((type_, id_), ("", 0, True))
        return ("", "missing") if deleted else (text, "found")

    def denormalised(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the event with the present copies."""
        flags, found = {}, {}
        ids = {
            "user": ("user", event["actor_id"] if event["actor_type"] == "User" else ""),
            "device": ("device", event["did"]),
            "content": ("content", event["object_id"]),
            "collection": ("content", event["collection_id"]),
            "organisation": ("organisation", event["organisation_id"]),
            "batch": ("batch", event["course_batch_id"]),
        }
        for column, (type_, id_) in ids.items():
            found[column], state = self.copy(type_, id_)
            if state:
                flags[column] = state
        location = derive_location("user", found["user"]) or derive_location("device", found["device"])
        return {**event, **found, "location": location, "flags": json.dumps(flags, separators=(",", ":"))}

    def store(self, table: str, **ids: str) -> None:
        """Store an event with the copies as they are now."""
        number = len(self.events)
        event = {"mid": f"m-{number}", "actor_type": "User", "actor_id": "", "did": "", "object_id": ""}
        event |= {"collection_id": "", "organisation_id": "", "course_batch_id": "", "channel": "c"} | ids
        event |= {"received_at": 1_767_225_600_000 + number}
        event = self.denormalised(event)
        self.events.append(event)
        insert(self.clickhouse, table, [event])

    def expected(self) -> list[tuple[str, ...]]:
        """Return what the view shows when every event has the present copies."""
        return [tuple(self.denormalised(event)[name] for name in SHOWN) for event in self.events]


def insert(clickhouse: ClickHouse, table: str, rows: list[dict[str, Any]]) -> None:
    types = {"received_at": pa.timestamp("ms", "UTC"), "updated_at": pa.timestamp("ms", "UTC")}
    types |= {"stored_at": pa.timestamp("ms", "UTC"), "version": pa.int64(), "deleted": pa.bool_()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in rows[0]])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    clickhouse.insert_stream(
        table, schema.names, sink.getvalue().to_pybytes(), uuid.uuid4().hex, tries=1, before_try=lambda _: None
    )


def seen(clickhouse: ClickHouse) -> list[tuple[str, ...]]:
    rows = clickhouse.rows(f"SELECT {', '.join(SHOWN)} FROM events ORDER BY received_at")
    return [tuple(row) for row in rows]


@pytest.fixture
def world(clickhouse: ClickHouse) -> World:
    return make_world(clickhouse)


def make_world(clickhouse: ClickHouse) -> World:
    for table in ("learning_events", "operational_events", "dimension_rows", "correction_rows"):
        clickhouse.command(f"TRUNCATE TABLE {table}")
    world = World(clickhouse)
    world.put("user", "u-1", {"state": "Kerala", "district": "Idukki"})
    world.put("user", "u-2", {"name": "no place"})
    world.put("device", "d-1", {"ipLocation": {"state": "Goa", "district": ""}})
    world.put("device", "d-2", {"userDeclaredLocation": {"state": "", "district": ODD}, "ipLocation": {"state": "x"}})
    world.put("content", "do_1", {"name": "one"})
    world.put("content", "do_2", {"name": "two"})
    world.put("organisation", "o-1", {"name": "school"})
    return world


def some_events(world: World) -> None:
    for number, table in enumerate(["learning_events", "operational_events"] * 3):
        world.store(table, actor_id=f"u-{number % 3 + 1}", did=f"d-{number % 2 + 1}", object_id="do_1")
    world.store("learning_events", actor_type="System", actor_id="u-1", did="d-1", object_id="do_2")
    world.store("learning_events", actor_id="u-2", did="d-3", object_id="do_2", collection_id="do_1")
    world.store("operational_events", actor_id="u-9", organisation_id="o-1", course_batch_id="b-1")


def corrector(world: World, **options: Any) -> Corrector:
    return Corrector(world.clickhouse, "", **{"grace_s": 0.0, **options})


def test_events_get_the_present_copies(world: World) -> None:
    some_events(world)
    world.put("user", "u-1", {"state": "Goa", "name": ODD})
    world.put("user", "u-3", {"district": "late"})
    assert seen(world.clickhouse) != world.expected()
    assert corrector(world).correct(USER, None, fill=False) == 4
    assert seen(world.clickhouse) == world.expected()
    assert corrector(world).correct(USER, None, fill=False) == 0


def test_an_object_that_was_deleted_is_missing(world: World) -> None:
    some_events(world)
    world.put("user", "u-1", None)
    world.put("content", "do_1", None)
    assert corrector(world).correct(USER, ["u-1", "u-77"], fill=False) == 2
    assert corrector(world).correct(CONTENT, ["do_1"], fill=False) == 7
    assert seen(world.clickhouse) == world.expected()


@pytest.mark.parametrize("place", [{"state": ODD}, {"district": "x", "state": 7}, {}, [], "text", {"state": ""}])
def test_a_users_place_gives_way_to_the_devices(world: World, place: Any) -> None:
    world.put("device", "d-1", {"userDeclaredLocation": place, "ipLocation": {"district": ODD}})
    some_events(world)
    world.put("user", "u-1", {"name": "no place any more"})
    corrector(world).correct(USER, ["u-1"], fill=False)
    assert seen(world.clickhouse) == world.expected()
    world.put("device", "d-1", {"ipLocation": place})
    corrector(world).correct(DEVICE, None, fill=False)
    assert seen(world.clickhouse) == world.expected()


def test_filling_leaves_what_was_found(world: World) -> None:
    some_events(world)
    before = seen(world.clickhouse)
    world.put("user", "u-1", {"state": "Goa"})
    world.put("user", "u-3", {"state": "late"})
    assert corrector(world).correct(USER, None, fill=True) == 2
    expected = [
        late if event["actor_id"] == "u-3" else old
        for event, old, late in zip(world.events, before, world.expected(), strict=True)
    ]
    assert seen(world.clickhouse) == expected


def test_a_stale_copy_is_repaired(world: World) -> None:
    some_events(world)
    world.clickhouse.command(
        'ALTER TABLE learning_events UPDATE flags = replaceOne(flags, \'"user":"found"\', \'"user":"stale"\'), '
        "user = 'old' WHERE actor_id = 'u-1' AND actor_type = 'User'",
        {"mutations_sync": 1},
    )
    assert corrector(world).repair(USER, 0) == 1
    assert seen(world.clickhouse) == world.expected()


def test_a_repair_looks_at_what_was_written_since(world: World) -> None:
    some_events(world)
    world.put("user", "u-3", {"state": "late"}, stored_at_ms=5_000)
    assert corrector(world).repair(USER, 5_001) == 0
    assert corrector(world).repair(USER, 5_000) == 2
    assert seen(world.clickhouse) == world.expected()


def test_types_without_a_copy_change_nothing(world: World) -> None:
    world.put("location", "l-1", {"name": "x"})
    assert corrector(world).correct(DimensionType.LOCATION, None, fill=False) == 0


class Failing:
    """ClickHouse that fails at one statement, before it or after it was done."""

    def __init__(self, inner: ClickHouse, at: int, after: bool) -> None:
        self._inner, self._left, self._after = inner, at, after
        self.looks: list[list[tuple[str, ...]]] = []
        self.failed = False

    def command(self, sql: str, settings: dict[str, Any] | None = None) -> Any:
        return self._do(lambda: self._inner.command(sql, settings))

    def insert_stream(self, *args: Any, **kwargs: Any) -> None:
        self._do(lambda: self._inner.insert_stream(*args, **kwargs))

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> Any:
        return self._inner.rows(sql, parameters)

    def _do(self, do: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            self.failed = True
            raise ClickHouseError("away", None)
        result = do()
        self.looks.append(seen(self._inner))
        if self._left == 0:
            self.failed = True
            raise ClickHouseError("away", None)
        return result


@pytest.mark.parametrize("after", [False, True])
def test_whatever_fails_every_event_of_an_object_shows_the_same(clickhouse: ClickHouse, after: bool) -> None:
    statements = 7
    for at in range(1, statements + 2):
        assert fail(make_world(clickhouse), at, after) is (at <= statements)


def fail(world: World, at: int, after: bool) -> bool:
    """Let a statement fail, bring it to its end; return whether there was such a statement."""
    some_events(world)
    before = seen(world.clickhouse)
    world.put("user", "u-1", {"state": "Goa"})
    world.put("user", "u-2", {"name": "another", "district": "d"})
    failing = Failing(world.clickhouse, at, after)
    run = Corrector(failing, "", grace_s=0)  # type: ignore[arg-type]
    try:
        run.correct(USER, ["u-1", "u-2"], fill=False)
    except ClickHouseError:
        assert failing.failed
    for look in [*failing.looks, seen(world.clickhouse)]:
        assert look in (before, world.expected())
    again = corrector(world)
    again.recover()
    again.correct(USER, ["u-1", "u-2"], fill=False)
    assert seen(world.clickhouse) == world.expected()
    assert world.clickhouse.rows("SELECT count() FROM correction_rows WHERE type != '' OR notEmpty(ids)") == [(0,)]
    return failing.failed


def test_there_is_time_between_what_is_shown_and_the_update(world: World) -> None:
    some_events(world)
    world.put("user", "u-1", {"state": "Goa"})
    stored: list[Any] = []

    def sleep(seconds: float) -> None:
        assert seconds == 3
        stored.append(world.clickhouse.rows("SELECT DISTINCT user FROM learning_events WHERE actor_id = 'u-1'"))
        assert seen(world.clickhouse) == world.expected()

    Corrector(world.clickhouse, "", grace_s=3, sleep=sleep).correct(USER, ["u-1"], fill=False)
    assert "Kerala" in str(stored)


def test_events_that_come_meanwhile_are_neither_lost_nor_doubled(world: World) -> None:
    some_events(world)
    world.put("user", "u-1", {"state": "Goa"})
    Corrector(
        world.clickhouse, "", grace_s=1, sleep=lambda _: world.store("learning_events", actor_id="u-1", did="d-2")
    ).correct(USER, None, fill=False)
    assert seen(world.clickhouse) == world.expected()


def test_who_wakes_up_after_another_took_over_changes_nothing(world: World) -> None:
    """The other is at something else by then, which is neither done half nor taken away."""
    some_events(world)
    world.put("user", "u-1", {"state": "Goa"})
    other = Overlay(world.clickhouse, is_cluster=False)

    def stand_still(_: float) -> None:
        corrector(world).recover()
        other.show(Objects("user", False, ["u-2"], ['{"shown":1}'], [""], ["found"]))

    with pytest.raises(TakenOverError):
        Corrector(world.clickhouse, "", sleep=stand_still).correct(USER, ["u-1"], fill=False)
    other.check()
    assert world.clickhouse.rows("SELECT DISTINCT user FROM events WHERE actor_id = 'u-2'") == [('{"shown":1}',)]
    other.clear()
    assert seen(world.clickhouse) == world.expected()


def test_it_stops_between_portions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midstream.correct.corrector._CHUNK_IDS", 1)
    some_events(world)
    world.put("user", "u-1", {"state": "Goa"})
    world.put("user", "u-2", {"state": "Goa"})
    told: list[tuple[int, int]] = []
    with pytest.raises(StoppedError):
        corrector(world).correct(
            USER, None, fill=False, progress=lambda *at: told.append(at), should_stop=lambda: (1, 2) in told
        )
    assert told == [(0, 2), (1, 2)]
    assert seen(world.clickhouse)[0] == world.expected()[0]
    corrector(world).correct(USER, None, fill=False)
    assert seen(world.clickhouse) == world.expected()


def test_a_large_object_of_many_events_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midstream.correct.corrector._MAX_COPIES_BYTES", 100)
    some_events(world)
    before = seen(world.clickhouse)
    world.put("user", "u-1", {"name": "x" * 90})
    world.put("user", "u-2", {"name": "small"})
    assert corrector(world).correct(USER, None, fill=False) == 3
    expected = world.expected()
    for event, old, new, now in zip(world.events, before, expected, seen(world.clickhouse), strict=True):
        assert now == (old if event["actor_id"] == "u-1" else new)


def test_any_changes_in_any_order(world: World) -> None:
    chance = random.Random(9)
    for _ in range(60):
        world.store(
            chance.choice(["learning_events", "operational_events"]),
            actor_type=chance.choice(["User", "User", "System"]),
            actor_id=f"u-{chance.randrange(6)}",
            did=f"d-{chance.randrange(4)}",
            object_id=f"do_{chance.randrange(4)}",
            collection_id=chance.choice(["", "do_1", "do_3"]),
            organisation_id=chance.choice(["", "o-1", "o-2"]),
            course_batch_id=chance.choice(["", "b-1"]),
        )
    for _ in range(25):
        type_ = chance.choice(list(COPIES))
        id_ = {"user": "u-{}", "device": "d-{}", "content": "do_{}", "organisation": "o-{}", "batch": "b-{}"}[type_]
        place = {"state": chance.choice(["", "Goa", ODD]), "district": chance.choice(["", "x"])}
        attributes = chance.choice(
            [None, {"userDeclaredLocation": place}, {"ipLocation": place}, place, {"n": chance.random()}]
        )
        world.put(type_, id_.format(chance.randrange(1, 4)), attributes)
        corrector(world).correct(type_, None, fill=False)
        assert seen(world.clickhouse) == world.expected()
