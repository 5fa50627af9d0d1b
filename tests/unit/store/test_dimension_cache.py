from collections.abc import Callable, Sequence
from typing import Any

import pytest
from clickhouse_connect.driver.binding import format_bind_value

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


def test_a_row_that_clickhouse_does_not_have_yet_is_asked_for_again_soon(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock)
    held.offer("user", "u1", '{"v":2}', 2, False)  # nobody asked for it yet
    held.offer("user", "u2", '{"v":1}', 1, False)
    held.offer("user", "u1", '{"v":1}', 1, False)  # seen again, late
    answers = []
    for clock.now in (0, 0.9, 1.1, 2.2):
        if clock.now == 2.2:
            clickhouse.stored = {"u1": ('{"v":2}', 2, False), "u2": ('{"v":1}', 1, False)}
        answers.append([entry.attributes for entry in held.get("user", ["u1", "u2"])])
    assert answers == [['{"v":1}', ""]] * 3 + [['{"v":2}', '{"v":1}']]
    assert clickhouse.queries == [["u1", "u2"]] * 3
    clock.now = 300
    held.get("user", ["u1", "u2"])
    assert len(clickhouse.queries) == 3


def test_every_row_is_asked_for_again_after_some_minutes(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False), "u2": ('{"v":1}', 1, False), "u3": ("{}", 1, False)})
    held = cache(clickhouse, clock)
    held.get("user", ["u1", "u2"])
    clickhouse.stored["u1"] = ('{"v":2}', 2, False)  # the topic's row never came here
    clickhouse.stored["u2"] = ("", 2, True)
    clock.now = 299
    assert [entry.attributes for entry in held.get("user", ["u1", "u2"])] == ['{"v":1}'] * 2
    clock.now = 301
    assert [entry.attributes for entry in held.get("user", ["u1", "u2", "u3"])] == ['{"v":2}', "", "{}"]
    assert clickhouse.queries == [["u1", "u2"], ["u1", "u2", "u3"]]


def test_a_row_from_kafka_stays_where_clickhouse_is_behind_and_heals_too(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock)
    held.get("user", ["u1"])
    held.offer("user", "u1", '{"v":2}', 2, False)
    clock.now = 301
    assert held.get("user", ["u1"])[0].attributes == '{"v":2}'
    clickhouse.stored["u1"] = ('{"v":3}', 3, False)
    clock.now = 602
    assert held.get("user", ["u1"])[0].attributes == '{"v":3}'
    assert len(clickhouse.queries) == 3


def test_known_versions_are_bounded_and_the_latest_stay(clock: Clock) -> None:
    clickhouse = FakeClickHouse({})
    held = cache(clickhouse, clock, entries=10)
    for number in range(100):
        held.offer("user", f"u{number}", "{}", 1, False)
    assert len(held._known) == 10
    held.get("user", ["u0", "u99"])
    clock.now = 2
    held.get("user", ["u0", "u99"])
    assert clickhouse.queries == [["u0", "u99"], ["u99"]]


@pytest.mark.parametrize("letter", ["x", "ü", "語"])
def test_an_id_that_no_row_can_have_is_missing_unasked(clock: Clock, letter: str) -> None:
    clickhouse = FakeClickHouse({})
    longest = letter * (1024 // len(letter.encode()))
    entries = cache(clickhouse, clock).get("user", [longest + letter, longest])
    assert [entry.attributes for entry in entries] == ["", ""]
    assert clickhouse.queries == [[longest]]


@pytest.mark.parametrize("id_", ["{:04}", "{:04}" + "x" * 1000, "{:04}" + "語" * 300, "{:04}" + "'\\" * 500])
def test_the_ids_of_a_query_fit_into_a_field_of_a_form(clock: Clock, id_: str) -> None:
    ids = [id_.format(number) for number in range(6_000)]
    clickhouse = FakeClickHouse({one: (f'{{"n":{number}}}', 1, False) for number, one in enumerate(ids)})
    entries = cache(clickhouse, clock).get("user", ids)
    assert [entry.attributes for entry in entries] == [f'{{"n":{number}}}' for number in range(6_000)]
    assert [one for query in clickhouse.queries for one in query] == ids
    sizes = [len(format_bind_value(query).encode()) for query in clickhouse.queries]
    assert max(sizes) <= 64 * 1024
    assert min(sizes[:-1]) > 60 * 1024 or max(map(len, clickhouse.queries)) == 5_000


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
