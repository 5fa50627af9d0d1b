"""A record is what its writes add up to, in any order and however often."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from midstream.assignments.fields import FIELDS, Value, read_write
from midstream.assignments.record import Record, Version, fold, show

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
SCORE = "engagement_score"


def write(version: int, given: dict[str, Value] | None = None, computed: dict[str, Value] | None = None) -> Version:
    given, computed = given or {}, computed or {}
    at = START + timedelta(seconds=version)
    return Version(version, at, frozenset(given), frozenset(computed), {**given, **computed})


def score(*writes: Version) -> Value:
    return fold(writes).values[SCORE]


def test_of_nothing_all_is_null() -> None:
    assert fold([]).values == dict.fromkeys(FIELDS)
    assert list(fold([write(1)]).values) == list(FIELDS)
    assert fold([]).updated_at is None
    assert fold([write(5), write(3)]).updated_at == START + timedelta(seconds=5)


def test_the_latest_given_value_counts_and_others_stay() -> None:
    first, second = write(1, {SCORE: 1.0, "total_time": 5}), write(2, {SCORE: 2.0})
    for order in ([first, second], [second, first], [second, first, second]):
        values = fold(order).values
        assert (values[SCORE], values["total_time"]) == (2.0, 5)


def test_what_was_given_is_never_overwritten_by_what_was_computed() -> None:
    assert score(write(1, {SCORE: 1.0}), write(2, computed={SCORE: 2.0})) == 1.0
    assert score(write(1, computed={SCORE: 2.0}), write(2, {SCORE: 1.0})) == 1.0


def test_without_a_given_one_the_latest_computed_value_counts() -> None:
    assert score(write(1, computed={SCORE: 1.0}), write(2, computed={SCORE: 2.0})) == 2.0


def test_what_was_cleared_stays_so_until_it_is_computed_or_given_anew() -> None:
    cleared = [write(1, {SCORE: 1.0}), write(2, computed={SCORE: 2.0}), write(3, {SCORE: None})]
    assert score(*cleared) is None
    assert score(*cleared, write(4, computed={SCORE: 4.0})) == 4.0
    assert score(*cleared, write(4, computed={SCORE: 4.0}), write(5, computed={SCORE: 5.0})) == 5.0
    assert score(*cleared, write(4, {SCORE: 4.5}), write(5, computed={SCORE: 5.0})) == 4.5


_values = st.none() | st.sampled_from([0.0, 1.0, 2.0])


@st.composite
def _writes(draw: st.DrawFn) -> list[Version]:
    """Writes of one record, in the order of their versions."""
    names = st.sampled_from(FIELDS[:3])
    writes = []
    for number in range(draw(st.integers(0, 6))):
        given_ = draw(st.dictionaries(names, _values, max_size=3))
        computed = draw(st.dictionaries(names, _values, max_size=2))
        writes.append(write(10 * number, given_, {name: computed[name] for name in computed if name not in given_}))
    return writes


def replay(writes: Iterable[Version]) -> dict[str, Value]:
    """The record, naively: write by write, each in its turn."""
    shown: dict[str, Value] = dict.fromkeys(FIELDS)
    is_given = dict.fromkeys(FIELDS, False)
    for one in writes:
        for name in one.given:
            shown[name] = one.values[name]
            is_given[name] = one.values[name] is not None
        for name in one.computed:
            if not is_given[name]:
                shown[name] = one.values[name]
    return shown


@given(_writes(), st.data())
def test_any_order_and_any_number_of_deliveries_are_a_replay_in_order(
    writes: list[Version], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(writes), max_size=4)) if writes else []
    shuffled = data.draw(st.permutations(writes + again))
    record = fold(shuffled)
    assert record == fold(writes)
    assert record.values == replay(writes)
    assert record.updated_at == (writes[-1].at if writes else None)
    cut = data.draw(st.integers(0, len(shuffled)))
    assert fold(shuffled[cut:], fold(shuffled[:cut])) == record


@given(_writes(), st.dictionaries(st.sampled_from(FIELDS), _values, max_size=7))
def test_a_later_write_changes_what_it_gives_and_nothing_else(writes: list[Version], given_: dict[str, Value]) -> None:
    before = fold(writes)
    after = fold([write(1_000, given_)], before)
    assert after.values == before.values | given_
    assert fold([write(1_000, given_)], after) == after


@given(_writes(), _writes())
def test_folding_changes_no_record(writes: list[Version], more: list[Version]) -> None:
    record = fold(writes)
    copy = Record(record.version, record.updated_at, dict(record.given), dict(record.computed))
    fold(more, record)
    assert record == copy


def test_shows_the_members_in_the_order_of_the_contract() -> None:
    values: dict[str, Value] = {
        "total_time": 90_500_000,
        "telemetry": b'{ "a": [1, 2.50, "\\u00e9"] }',
        "engagement_score": 90.0,
        "completion_rate": 33.33,
    }
    east = datetime(2026, 1, 31, 13, 0, 0, tzinfo=timezone(timedelta(hours=1)))
    reply = show(7, 123, 'intro-"ü"', values, east, datetime(2026, 1, 31, 12, 0, 1, 5, tzinfo=UTC))
    assert reply.decode() == (
        '{"id":7,"user":123,"asset_slug":"intro-\\"ü\\"","telemetry":{ "a": [1, 2.50, "\\u00e9"] },"metrics":null,'
        '"engagement_score":90.0,"frustration_score":null,"completion_rate":33.33,"metrics_algo_version":null,'
        '"total_time":"00:01:30.500000","created_at":"2026-01-31T12:00:00.000000Z",'
        '"updated_at":"2026-01-31T12:00:01.000005Z"}'
    )


def test_an_empty_record_shows_nulls_and_zeros_are_no_nulls() -> None:
    empty: dict[str, Any] = json.loads(show(1, 2, "a", {}, START, START))
    assert [empty[name] for name in FIELDS] == [None] * len(FIELDS)
    zeros = show(1, 2, "a", {"engagement_score": 0.0, "total_time": 0, "metrics": b"{}"}, START, START)
    assert b'"engagement_score":0.0' in zeros
    assert b'"total_time":"00:00:00"' in zeros
    assert b'"metrics":{}' in zeros


@given(st.dictionaries(st.sampled_from(FIELDS[2:6]), st.floats(0, 100)), st.text(max_size=5))
def test_what_is_shown_is_read_as_the_same_write(scores: dict[str, float], text: str) -> None:
    body = json.dumps({**scores, "telemetry": {text: [text]}, "total_time": "1 01:00:00.5"}).encode("utf-8")
    values = read_write(body)
    assert read_write(show(1, 2, "a", values, START, START)) == dict.fromkeys(FIELDS) | values
