from collections.abc import Callable, Sequence
from typing import Any

import pytest

from midstream.clickhouse.client import ClickHouseError
from processors.store.dimension_cache import DimensionCache, derive_location


class FakeClickHouse:
    def __init__(self, rows: dict[str, tuple[str, int, bool]]) -> None:
        self.stored = rows
        self.queries: list[list[str]] = []
        self.during: Callable[[], None] = lambda: None

    def rows(self, sql: str, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        self.queries.append(parameters["ids"])
        found = [(id_, *self.stored[id_]) for id_ in parameters["ids"] if id_ in self.stored]
        self.during()
        return found


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache(clickhouse: FakeClickHouse, clock: Clock, entries: int = 100) -> DimensionCache:
    return DimensionCache(clickhouse, entries, 30_000, clock)  # type: ignore[arg-type]


def test_what_is_missing_is_asked_for_together_and_once(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ("{}", 1, False), "u2": ('{"a":1}', 2, False)})
    held = cache(clickhouse, clock)
    assert [entry.attributes for entry in held.get("user", ["u1", "u2"])] == ["{}", '{"a":1}']
    held.get("user", ["u2", "u1"])
    assert clickhouse.queries == [["u1", "u2"]]


def test_a_miss_is_believed_for_a_short_time_only(clock: Clock) -> None:
    clickhouse = FakeClickHouse({})
    held = cache(clickhouse, clock)
    assert held.get("user", ["u1"])[0].attributes == ""
    clickhouse.stored["u1"] = ('{"late":1}', 1, False)
    clock.now = 29
    assert held.get("user", ["u1"])[0].attributes == ""
    clock.now = 31
    assert held.get("user", ["u1"])[0].attributes == '{"late":1}'


def test_a_row_from_kafka_replaces_a_lower_version_only(clock: Clock) -> None:
    held = cache(FakeClickHouse({"u1": ('{"v":5}', 5, False)}), clock)
    held.get("user", ["u1"])
    held.offer("user", "u1", '{"v":4}', 4, False)
    assert held.get("user", ["u1"])[0].attributes == '{"v":5}'
    held.offer("user", "u1", '{"v":6}', 6, False)
    assert held.get("user", ["u1"])[0].attributes == '{"v":6}'
    held.offer("user", "u1", "{}", 7, True)
    assert held.get("user", ["u1"])[0].attributes == ""
    held.offer("user", "u1", '{"v":6}', 6, False)
    assert held.get("user", ["u1"])[0].attributes == ""


def test_a_row_that_comes_while_clickhouse_is_asked_is_not_lost(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock)
    clickhouse.during = lambda: held.offer("user", "u1", '{"v":2}', 2, False)
    assert held.get("user", ["u1"])[0].attributes == '{"v":2}'


def test_a_row_that_a_miss_was_remembered_for_comes_at_once(clock: Clock) -> None:
    held = cache(FakeClickHouse({}), clock)
    held.get("user", ["u1"])
    held.offer("user", "u1", '{"v":2}', 2, False)
    assert held.get("user", ["u1"])[0].attributes == '{"v":2}'


def test_a_bulk_load_pushes_out_nothing(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ("{}", 1, False)})
    held = cache(clickhouse, clock, entries=2)
    held.get("user", ["u1"])
    for number in range(100):
        held.offer("user", f"other{number}", "{}", 1, False)
    held.get("user", ["u1"])
    assert clickhouse.queries == [["u1"]]


def test_the_least_used_goes_first_and_the_bound_holds(clock: Clock) -> None:
    clickhouse = FakeClickHouse({f"u{n}": ("{}", 1, False) for n in range(3)})
    held = cache(clickhouse, clock, entries=2)
    held.get("user", ["u0"])
    held.get("user", ["u1"])
    held.get("user", ["u0"])
    held.get("user", ["u2"])
    held.get("user", ["u0"])
    assert clickhouse.queries == [["u0"], ["u1"], ["u2"]]
    held.get("user", ["u1"])
    assert clickhouse.queries[-1] == ["u1"]


def test_more_ids_than_the_cache_holds_are_all_answered(clock: Clock) -> None:
    clickhouse = FakeClickHouse({f"u{n}": (f'{{"n":{n}}}', 1, False) for n in range(50)})
    answered = cache(clickhouse, clock, entries=5).get("user", [f"u{n}" for n in range(50)])
    assert [entry.attributes for entry in answered] == [f'{{"n":{n}}}' for n in range(50)]


def test_a_failed_look_up_leaves_nothing_behind(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ("{}", 1, False)})
    held = cache(clickhouse, clock)

    def fail() -> None:
        raise ClickHouseError("away", None)

    clickhouse.during = fail
    with pytest.raises(ClickHouseError):
        held.get("user", ["u1"])
    assert held._asked == {}
    clickhouse.during = lambda: None
    assert held.get("user", ["u1"])[0].attributes == "{}"


@pytest.mark.parametrize(
    ("type_", "attributes", "expected"),
    [
        ("user", '{"state":"K","district":""}', '{"state":"K","district":"","from":"user-profile"}'),
        ("user", '{"state":"","district":""}', ""),
        ("user", '{"state":1}', ""),
        ("device", '{"userDeclaredLocation":"x","ipLocation":{"state":"D"}}', None),
        ("device", "{}", ""),
        ("content", '{"state":"K"}', ""),
        ("user", '{"state":1e999}', ""),
        ("user", "", ""),
    ],
)
def test_a_location_is_derived_or_not(type_: str, attributes: str, expected: str | None) -> None:
    wanted = '{"state":"D","district":"","from":"ip-resolved"}' if expected is None else expected
    assert derive_location(type_, attributes) == wanted
