from collections.abc import Callable, Sequence
from sys import getsizeof
from typing import Any

import pytest
from clickhouse_connect.driver.binding import format_bind_value
from hypothesis import given
from hypothesis import strategies as st

from midstream.clickhouse.client import ClickHouseError
from midstream.metrics import DIMENSION_CACHE_BYTES
from processors.store.dimension_cache import DimensionCache, Entry, derive_location


class FakeClickHouse:
    def __init__(self, rows: dict[str, tuple[str, int, bool]]) -> None:
        self.stored = rows
        self.queries: list[list[str]] = []
        self.during: Callable[[], None] = lambda: None

    def rows(self, sql: str, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        assert parameters["type_0"] == "user"
        self.queries.append(parameters["ids_0"])
        found = [("user", id_, *self.stored[id_], 0) for id_ in parameters["ids_0"] if id_ in self.stored]
        self.during()
        return found


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache(
    clickhouse: FakeClickHouse, clock: Clock, entries: int = 100, size_bytes: int = 1 << 20, *, followed: bool = True
) -> DimensionCache:
    made = DimensionCache(clickhouse, entries, size_bytes, 30_000, clock)  # type: ignore[arg-type]
    made.follow(followed)
    return made


def users(held: DimensionCache, ids: Sequence[str]) -> list[Entry]:
    (found,) = held.get([("user", ids)])
    return found


def size_bytes(held: DimensionCache) -> int:
    texts = [
        text
        for entries in held._held.values()
        for id_, entry in entries.items()
        for text in (id_, entry.attributes, entry.location)
    ]
    return sum(map(getsizeof, texts)) + 300 * len(texts) // 3


def test_what_is_missing_is_asked_for_together_and_once(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ("{}", 1, False), "u2": ('{"a":1}', 2, False)})
    held = cache(clickhouse, clock)
    assert [entry.attributes for entry in users(held, ["u1", "u2"])] == ["{}", '{"a":1}']
    users(held, ["u2", "u1"])
    assert clickhouse.queries == [["u1", "u2"]]


def test_a_miss_is_believed_for_a_short_time_only(clock: Clock) -> None:
    clickhouse = FakeClickHouse({})
    held = cache(clickhouse, clock)
    assert users(held, ["u1"])[0].attributes == ""
    clickhouse.stored["u1"] = ('{"late":1}', 1, False)
    clock.now = 29
    assert users(held, ["u1"])[0].attributes == ""
    clock.now = 31
    assert users(held, ["u1"])[0].attributes == '{"late":1}'


def test_a_row_from_kafka_replaces_a_lower_version_only(clock: Clock) -> None:
    held = cache(FakeClickHouse({"u1": ('{"v":5}', 5, False)}), clock)
    users(held, ["u1"])
    held.offer("user", "u1", '{"v":4}', 4, False)
    assert users(held, ["u1"])[0].attributes == '{"v":5}'
    held.offer("user", "u1", '{"v":6}', 6, False)
    assert users(held, ["u1"])[0].attributes == '{"v":6}'
    held.offer("user", "u1", "{}", 7, True)
    assert users(held, ["u1"])[0].attributes == ""
    held.offer("user", "u1", '{"v":6}', 6, False)
    assert users(held, ["u1"])[0].attributes == ""


def test_a_row_that_comes_while_clickhouse_is_asked_is_not_lost(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock)
    clickhouse.during = lambda: held.offer("user", "u1", '{"v":2}', 2, False)
    assert users(held, ["u1"])[0].attributes == '{"v":2}'


def test_a_row_that_a_miss_was_remembered_for_comes_at_once(clock: Clock) -> None:
    held = cache(FakeClickHouse({}), clock)
    users(held, ["u1"])
    held.offer("user", "u1", '{"v":2}', 2, False)
    assert users(held, ["u1"])[0].attributes == '{"v":2}'


def test_a_bulk_load_pushes_out_nothing(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ("{}", 1, False)})
    held = cache(clickhouse, clock, entries=2)
    users(held, ["u1"])
    for number in range(100):
        held.offer("user", f"other{number}", "{}", 1, False)
    users(held, ["u1"])
    assert clickhouse.queries == [["u1"]]


def test_the_least_used_goes_first_and_the_bound_holds(clock: Clock) -> None:
    clickhouse = FakeClickHouse({f"u{n}": ("{}", 1, False) for n in range(3)})
    held = cache(clickhouse, clock, entries=2)
    users(held, ["u0"])
    users(held, ["u1"])
    users(held, ["u0"])
    users(held, ["u2"])
    users(held, ["u0"])
    assert clickhouse.queries == [["u0"], ["u1"], ["u2"]]
    users(held, ["u1"])
    assert clickhouse.queries[-1] == ["u1"]


def test_more_ids_than_the_cache_holds_are_all_answered(clock: Clock) -> None:
    clickhouse = FakeClickHouse({f"u{n}": (f'{{"n":{n}}}', 1, False) for n in range(50)})
    answered = users(cache(clickhouse, clock, entries=5), [f"u{n}" for n in range(50)])
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
        answers.append([entry.attributes for entry in users(held, ["u1", "u2"])])
    assert answers == [['{"v":1}', ""]] * 3 + [['{"v":2}', '{"v":1}']]
    assert clickhouse.queries == [["u1", "u2"]] * 3
    clock.now = 300
    users(held, ["u1", "u2"])
    assert len(clickhouse.queries) == 3


def test_every_row_is_asked_for_again_after_some_minutes(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False), "u2": ('{"v":1}', 1, False), "u3": ("{}", 1, False)})
    held = cache(clickhouse, clock)
    users(held, ["u1", "u2"])
    clickhouse.stored["u1"] = ('{"v":2}', 2, False)  # the topic's row never came here
    clickhouse.stored["u2"] = ("", 2, True)
    clock.now = 299
    assert [entry.attributes for entry in users(held, ["u1", "u2"])] == ['{"v":1}'] * 2
    clock.now = 301
    assert [entry.attributes for entry in users(held, ["u1", "u2", "u3"])] == ['{"v":2}', "", "{}"]
    assert clickhouse.queries == [["u1", "u2"], ["u1", "u2", "u3"]]


def test_a_row_from_kafka_stays_where_clickhouse_is_behind_and_heals_too(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock)
    users(held, ["u1"])
    held.offer("user", "u1", '{"v":2}', 2, False)
    clock.now = 301
    assert users(held, ["u1"])[0].attributes == '{"v":2}'
    clickhouse.stored["u1"] = ('{"v":3}', 3, False)
    clock.now = 602
    assert users(held, ["u1"])[0].attributes == '{"v":3}'
    assert len(clickhouse.queries) == 3


def test_known_versions_are_bounded_and_the_latest_stay(clock: Clock) -> None:
    clickhouse = FakeClickHouse({})
    held = cache(clickhouse, clock, entries=10)
    for number in range(100):
        held.offer("user", f"u{number}", "{}", 1, False)
    assert len(held._known) == 10
    users(held, ["u0", "u99"])
    clock.now = 2
    users(held, ["u0", "u99"])
    assert clickhouse.queries == [["u0", "u99"], ["u99"]]


@pytest.mark.parametrize("letter", ["x", "ü", "語"])
def test_an_id_that_no_row_can_have_is_missing_unasked(clock: Clock, letter: str) -> None:
    clickhouse = FakeClickHouse({})
    longest = letter * (1024 // len(letter.encode()))
    entries = users(cache(clickhouse, clock), [longest + letter, longest])
    assert [entry.attributes for entry in entries] == ["", ""]
    assert clickhouse.queries == [[longest]]


@pytest.mark.parametrize("id_", ["{:04}", "{:04}" + "x" * 1000, "{:04}" + "語" * 300, "{:04}" + "'\\" * 500])
def test_the_ids_of_a_query_fit_into_a_field_of_a_form(clock: Clock, id_: str) -> None:
    ids = [id_.format(number) for number in range(6_000)]
    clickhouse = FakeClickHouse({one: (f'{{"n":{number}}}', 1, False) for number, one in enumerate(ids)})
    entries = users(cache(clickhouse, clock), ids)
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
        users(held, ["u1"])
    assert held._asked == {}
    clickhouse.during = lambda: None
    assert users(held, ["u1"])[0].attributes == "{}"


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


class Types:
    """A ClickHouse with the same row for every id that is asked for."""

    def __init__(self, attributes: str = "{}") -> None:
        self.attributes = attributes
        self.asked: list[dict[str, int]] = []

    def rows(self, sql: str, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        count = len(parameters) // 2
        wanted = [(parameters[f"type_{n}"], parameters[f"ids_{n}"]) for n in range(count)]
        assert sql.count("id IN") == count
        self.asked.append({type_: len(ids) for type_, ids in wanted})
        return [(type_, id_, self.attributes, 1, False, 0) for type_, ids in wanted for id_ in ids]


def test_a_cold_start_asks_few_queries_for_all_types_together(clock: Clock) -> None:
    clickhouse = Types()
    held = DimensionCache(clickhouse, 200_000, 1 << 30, 30_000, clock)  # type: ignore[arg-type]
    ids = [f"{number:08d}-9f8e-4d6c-5b4a-000000000000" for number in range(5_000)]
    wanted = {"user": ids, "device": ids, "content": ids[:500], "organisation": ids[:3]}
    held.get([*wanted.items(), ("content", ids[100:300])])
    assert len(clickhouse.asked) == 4
    assert clickhouse.asked[0].keys() == wanted.keys()
    totals = {type_: sum(query.get(type_, 0) for query in clickhouse.asked) for type_ in wanted}
    assert totals == {type_: len(given) for type_, given in wanted.items()}


def test_types_do_not_mix(clock: Clock) -> None:
    class Named(Types):
        def rows(self, sql: str, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
            return [(*row[:2], f'{{"is":"{row[0]}"}}', *row[3:]) for row in super().rows(sql, parameters)]

    held = DimensionCache(Named(), 100, 1 << 20, 30_000, clock)  # type: ignore[arg-type]
    for _ in range(2):
        found = held.get([("user", ["x", "y"]), ("device", ["x"]), ("user", ["z", "x"]), ("batch", [])])
        assert [[entry.attributes for entry in entries] for entries in found] == [
            ['{"is":"user"}'] * 2,
            ['{"is":"device"}'],
            ['{"is":"user"}'] * 2,
            [],
        ]


def test_an_id_that_stands_twice_is_asked_for_once(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ("{}", 1, False)})
    assert [entry.attributes for entry in users(cache(clickhouse, clock), ["u1", "u2", "u1"])] == ["{}", "", "{}"]
    assert clickhouse.queries == [["u1", "u2"]]


def test_the_bound_in_bytes_holds_and_what_is_answered_is_whole(clock: Clock) -> None:
    large = '{"a":"' + "x" * 1_000_000 + '"}'
    clickhouse = Types(large)
    held = DimensionCache(clickhouse, 200_000, 4_500_000, 30_000, clock)  # type: ignore[arg-type]
    held.follow(True)
    answered = users(held, [f"u{n}" for n in range(10)])
    assert [entry.attributes for entry in answered] == [large] * 10
    assert held._entries == len(held._held["user"]) == 4
    assert held._bytes.total() == size_bytes(held) <= 4_500_000
    assert DIMENSION_CACHE_BYTES._value.get() == held._bytes.total()
    users(held, [f"u{n}" for n in range(6, 10)])
    assert len(clickhouse.asked) == 1  # the newest are held
    held.offer("user", "u9", "{}", 2, False)
    assert held._bytes.total() == size_bytes(held) < 3_500_000


def test_an_object_larger_than_the_bound_is_answered_and_not_held(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ("x" * 2_000, 1, False)})
    held = cache(clickhouse, clock, size_bytes=1_000)
    for times in (1, 2):
        assert users(held, ["u1"])[0].attributes == "x" * 2_000
        assert len(clickhouse.queries) == times
    assert (held._bytes.total(), held._entries) == (0, 0)


def test_a_copy_is_stale_while_the_topic_knows_more_than_clickhouse(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False), "u2": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock)
    held.offer("user", "u1", '{"v":2}', 2, False)
    assert [entry.is_stale for entry in users(held, ["u1", "u2"])] == [True, False]
    assert [entry.is_stale for entry in users(held, ["u1", "u2"])] == [True, False]
    held.offer("user", "u1", '{"v":3}', 3, False)  # held by now: used at once
    (entry,) = users(held, ["u1"])
    assert (entry.attributes, entry.is_stale) == ('{"v":3}', False)


def test_a_row_that_comes_while_it_is_asked_for_is_used_at_once_and_not_stale(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock)
    clickhouse.during = lambda: held.offer("user", "u1", '{"v":2}', 2, False)
    (entry,) = users(held, ["u1"])
    assert (entry.attributes, entry.is_stale) == ('{"v":2}', False)


def test_while_the_topic_is_not_followed_nothing_is_believed_for_long(clock: Clock) -> None:
    clickhouse = FakeClickHouse({"u1": ('{"v":1}', 1, False)})
    held = cache(clickhouse, clock, followed=False)
    for clock.now, queries in ((0, 1), (1.9, 1), (2.1, 2)):
        users(held, ["u1", "nobody"])
        assert len(clickhouse.queries) == queries
    held.follow(True)
    clock.now = 10
    users(held, ["u1"])
    clock.now = 300
    users(held, ["u1"])
    assert len(clickhouse.queries) == 3
    clickhouse.stored["u1"] = ('{"v":2}', 2, False)
    held.follow(False)  # what was heard may not be all
    assert users(held, ["u1"])[0].attributes == '{"v":2}'
    held.follow(False)
    users(held, ["u1"])
    assert len(clickhouse.queries) == 4
    assert held._bytes.total() == size_bytes(held)


@given(
    st.lists(
        st.tuples(st.sampled_from(["get", "offer", "pass"]), st.integers(0, 5), st.integers(1, 6), st.booleans()),
        max_size=60,
    )
)
def test_an_entry_only_moves_to_a_higher_version_within_its_bounds(steps: list[tuple[str, int, int, bool]]) -> None:
    clock = Clock()
    clickhouse = FakeClickHouse({})
    held = cache(clickhouse, clock, entries=3, size_bytes=2_000)
    seen: dict[str, int] = {}
    newest: dict[str, tuple[str, int, bool]] = {}
    for step, number, version, deleted in steps:
        id_ = f"u{number}"
        if step == "pass":
            clock.now += version * 50
            clickhouse.stored = dict(newest)  # ClickHouse has caught up
        elif step == "offer":
            row = (f'{{"v":{version}}}', version, deleted)
            if id_ not in newest or version > newest[id_][1]:
                newest[id_] = row
                held.offer("user", id_, *row)
        else:
            (entry,) = users(held, [id_])
            stored = clickhouse.stored.get(id_)
            assert entry.version >= (stored[1] if stored else -1)
            assert entry.version >= seen.get(id_, -1) or entry.is_stale or entry.version == -1
            if entry.version >= 0:
                text, _, is_deleted = newest[id_] if newest[id_][1] == entry.version else stored or ("", 0, True)
                assert entry.attributes == ("" if is_deleted else text)
            seen[id_] = entry.version
        assert held._entries == len(held._held["user"]) <= 3
        assert held._bytes.total() == size_bytes(held) <= 2_000


def test_of_several_types_the_one_that_holds_most_gives_way(clock: Clock) -> None:
    clickhouse = Types()
    held = DimensionCache(clickhouse, 10, 1 << 20, 30_000, clock)  # type: ignore[arg-type]
    held.follow(True)
    held.get([("organisation", ["o1", "o2"])])
    held.get([("user", [f"u{n}" for n in range(50)])])
    assert {type_: list(entries) for type_, entries in held._held.items()} == {
        "organisation": ["o1", "o2"],
        "user": [f"u{n}" for n in range(42, 50)],
    }
    assert (held._entries, held._bytes.total()) == (10, size_bytes(held))


def test_large_objects_of_one_type_push_out_each_other_and_no_other(clock: Clock) -> None:
    class Large(Types):
        def rows(self, sql: str, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
            return [
                (type_, id_, "x" * 100_000 if type_ == "content" else "{}", *rest)
                for type_, id_, _, *rest in super().rows(sql, parameters)
            ]

    held = DimensionCache(Large(), 1_000, 1 << 20, 30_000, clock)  # type: ignore[arg-type]
    held.get([("user", [f"u{n}" for n in range(500)])])
    held.get([("content", [f"c{n}" for n in range(40)])])
    assert len(held._held["user"]) == 500
    assert 5 < len(held._held["content"]) < 10
    assert list(held._held["content"])[-1] == "c39"
