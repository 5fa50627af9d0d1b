"""What an audit says of what it found."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.audit.findings import (
    HOUR_MS,
    Counts,
    Finding,
    Kind,
    Report,
    format_time,
    parse_time,
    runs,
    slices,
    spans,
)


def report(**counts: int) -> Report:
    sound = {"batches": 2, "received": 6, "stored": 3, "duplicate": 2, "rejected": 1}
    return Report(0, 1_000, 1_000, 10, Counts(**(sound | counts)))


def test_what_adds_up_and_was_checked_is_proven() -> None:
    assert report().proven
    assert report(in_flight=7).proven


@pytest.mark.parametrize("wrong", ["missing", "surplus", "doubled", "gaps", "received"])
def test_anything_wrong_is_not_proven(wrong: str) -> None:
    assert not report(**{wrong: 7}).proven


def test_what_could_not_be_checked_is_not_proven() -> None:
    found = report()
    found.unchecked.append("Kafka is away")
    assert not found.proven


def test_the_verdict_says_up_to_which_moment() -> None:
    assert report().verdict.startswith("Proven up to 1970-01-01T00:00:01.000Z:")
    assert report(missing=1).verdict == "NOT PROVEN up to 1970-01-01T00:00:01.000Z."


def test_findings_beyond_the_limit_are_counted() -> None:
    found = report()
    for number in range(13):
        found.find(Finding(Kind.MISSING, "b", number))
    assert (len(found.findings), found.dropped) == (10, 3)
    assert not found.proven
    assert found.as_dict()["findings_dropped"] == 3


def test_a_finding_says_only_what_is_known_of_it() -> None:
    finding = Finding(Kind.MISSING, "b1", 3, "m1", "START", "telemetry.raw", 0, 17)
    assert (
        finding.line()
        == "missing: batch_id b1 event_index 3 mid m1 eid START topic telemetry.raw partition 0 offset 17"
    )
    assert Finding(Kind.SEQUENCE_GAP, collector="c/0", sequence=4, count=2).as_dict() == {
        "kind": "sequence_gap",
        "collector": "c/0",
        "sequence": 4,
        "count": 2,
    }
    assert replace(finding, note="why").line().endswith("(why)")


def test_sums_of_times_add() -> None:
    counts = Counts(1, 2, 3)
    counts.add(Counts(10, 20, 30, gaps=5))
    assert asdict(counts) == asdict(Counts(11, 22, 33, gaps=5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T10:30", "2026-01-31T10:30:00.000Z"),
        (" 2026-01-31T10:30:00.5Z", "2026-01-31T10:30:00.500Z"),
        ("2026-01-31T10:30:00+05:30", "2026-01-31T05:00:00.000Z"),
    ],
)
def test_times_are_read_as_utc(text: str, expected: str) -> None:
    assert format_time(parse_time(text)) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "31.1.2026", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 700))
def test_slices_make_up_the_time(begin: int, end: int, width: int) -> None:
    found = list(slices(begin, end, width))
    assert [number for first, last in found for number in range(first, last)] == list(range(begin, end))
    assert all(0 < last - first <= width for first, last in found)


@given(
    st.dictionaries(st.integers(0, 50), st.integers(1, 9)),
    st.integers(0, HOUR_MS - 1),
    st.integers(1, HOUR_MS),
    st.integers(1, 20),
)
def test_spans_hold_every_hour_that_holds_anything(counts: dict[int, int], first: int, last: int, rows: int) -> None:
    hours = dict(sorted(counts.items()))
    begin, end = (min(hours) * HOUR_MS + first, max(hours) * HOUR_MS + last) if hours else (0, 1)
    if begin >= end:
        return
    found = list(spans(hours, begin, end, rows))
    held = [[hour for hour in hours if low < (hour + 1) * HOUR_MS and hour * HOUR_MS < high] for low, high in found]
    assert [hour for some in held for hour in some] == list(hours)
    assert all(len(some) == 1 or sum(hours[hour] for hour in some) <= rows for some in held)
    # No more of them than needed: the first hour of one would have been too much for the one before.
    pairs = itertools.pairwise(held)
    assert all(sum(hours[hour] for hour in some) + hours[following[0]] > rows for some, following in pairs)
    assert all(begin <= low < high <= end for low, high in found)


@given(st.sets(st.integers(0, 200)))
def test_runs_make_up_the_numbers(numbers: set[int]) -> None:
    found = list(runs(sorted(numbers)))
    assert {number for first, count in found for number in range(first, first + count)} == numbers
    assert all(first + count < later for (first, count), (later, _) in itertools.pairwise(found))
