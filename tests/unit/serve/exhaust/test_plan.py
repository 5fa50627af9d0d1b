"""How a day is read."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from midstream.exhaust.queries import Second
from serve.exhaust.days.builder.plan import Hour, Slice, plan_hours, plan_slices

HOUR_MS = 3_600_000


def second(at_s: int, events: int, bytes_: int = 0) -> Second:
    return Second(at_s * 1000, events, bytes_, at_s * 1000 + 7)


def test_a_day_without_events() -> None:
    assert plan_slices([]) == []
    assert plan_hours([]) == []


def test_slices_end_where_the_next_second_would_be_too_much() -> None:
    seconds = [second(1, 4), second(2, 6), second(3, 1), second(9, 20), second(10, 1)]
    assert plan_slices(seconds, most_events=10, most_bytes=100) == [
        Slice(1000, 3000, 10),
        Slice(3000, 4000, 1),
        Slice(9000, 10000, 20),
        Slice(10000, 11000, 1),
    ]


def test_slices_are_bounded_by_bytes_too() -> None:
    seconds = [second(1, 1, 60), second(2, 1, 60), second(3, 1, 30)]
    assert plan_slices(seconds, most_events=10, most_bytes=100) == [Slice(1000, 2000, 1), Slice(2000, 4000, 2)]


def test_hours_are_those_with_events() -> None:
    seconds = [second(0, 1), second(3599, 2), second(3600, 3), second(86_399, 4)]
    assert plan_hours(seconds) == [Hour(0, 3, 7), Hour(1, 3, 3_600_007), Hour(23, 4, 86_399_007)]


@given(st.dictionaries(st.integers(0, 86_399), st.tuples(st.integers(1, 50), st.integers(0, 500))))
def test_every_event_is_in_one_slice_and_one_hour(day: dict[int, tuple[int, int]]) -> None:
    seconds = [second(at, *day[at]) for at in sorted(day)]
    slices = plan_slices(seconds, most_events=60, most_bytes=600)
    for one in slices:
        inside = [held for held in seconds if one.begin_ms <= held.at_ms < one.end_ms]
        assert sum(held.events for held in inside) == one.events
        assert len(inside) == 1 or (one.events <= 60 and sum(held.bytes for held in inside) <= 600)
    assert sum(one.events for one in slices) == sum(held.events for held in seconds)
    assert all(before.end_ms <= after.begin_ms for before, after in pairwise(slices))
    for hour in plan_hours(seconds):
        inside = [held for held in seconds if held.at_ms // HOUR_MS == hour.hour]
        assert (hour.events, hour.first_ms) == (sum(held.events for held in inside), inside[0].first_ms)
