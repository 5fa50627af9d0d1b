"""The state depends on the set of reports alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from midstream.devices.report import Report, Value
from midstream.devices.state import AHEAD_US, earliest, state_of

NOW_US = 1_769_860_800_000_000
SECOND_US = 1_000_000
_ids = count()


def report(
    values: Mapping[str, Value | None],
    *,
    at_s: float | None = None,
    received_s: float = 0,
    override: bool = False,
    digest: bytes = b"m",
    receipt_id: str = "",
) -> Report:
    """Return a report; times are seconds from now."""
    return Report(
        "d",
        NOW_US + int(received_s * SECOND_US),
        receipt_id or f"r{next(_ids)}",
        digest,
        "online",
        dict(values),
        override,
        None if at_s is None else NOW_US + int(at_s * SECOND_US),
    )


def plain(reports: Sequence[Report], at_s: float | None = None) -> dict[str, Value]:
    at_us = None if at_s is None else NOW_US + int(at_s * SECOND_US)
    return {key: entry.value for key, entry in state_of(reports, at_us).items()}


def test_the_later_one_counts_whichever_comes_first() -> None:
    old, new = report({"a": 1, "b": 1}, at_s=1, received_s=20), report({"a": 2}, at_s=2, received_s=10)
    assert plain([old, new]) == plain([new, old]) == {"a": 2, "b": 1}


def test_null_removes_a_key_and_an_older_report_does_not_bring_it_back() -> None:
    gone, late = report({"a": None}, at_s=5), report({"a": 1, "b": 2}, at_s=4, received_s=9)
    assert plain([gone, late]) == {"b": 2}
    assert plain([gone, late, report({"a": 3}, at_s=6, received_s=10)]) == {"a": 3, "b": 2}


def test_override_replaces_what_is_older_and_nothing_that_is_newer() -> None:
    older, over, newer = (
        report({"a": 1, "b": 1}, at_s=1),
        report({"b": 2}, at_s=2, override=True),
        report({"c": 3}, at_s=3),
    )
    assert plain([newer, over, older]) == {"b": 2, "c": 3}
    assert plain([older, over, newer], at_s=1.5) == {"a": 1, "b": 1}


def test_at_one_time_the_digest_decides() -> None:
    one, other = report({"a": 1}, at_s=1, digest=b"a"), report({"a": 2}, at_s=1, digest=b"b")
    assert plain([one, other]) == plain([other, one]) == {"a": 2}


def test_without_a_time_of_its_own_a_report_is_as_of_its_receipt_and_always_new() -> None:
    first = report({"a": 1}, received_s=1)
    between = report({"a": 2}, at_s=2, received_s=2)
    again = report({"a": 1}, received_s=3)
    assert plain([first, between, again]) == {"a": 1}
    assert plain([first, between, msgspec.structs.replace(first)]) == {"a": 2}  # delivered twice: the same receipt


def test_a_clock_far_ahead_freezes_no_key() -> None:
    ahead = report({"a": 1}, at_s=100_000, received_s=0)
    assert plain([ahead]) == {"a": 1}
    assert state_of([ahead])["a"].place.at_us == NOW_US + AHEAD_US
    later = report({"a": 2}, at_s=301, received_s=301)
    assert plain([ahead, later]) == plain([later, ahead]) == {"a": 2}


def test_the_earliest_receipt_counts_whatever_came_in_between() -> None:
    """The same report, first seen when its time was no longer ahead, then by a receipt at which it was."""
    seen = report({"a": 1}, at_s=600, received_s=590, digest=b"s")
    between = report({"a": 2}, at_s=400, received_s=400)
    assert plain([seen, between]) == {"a": 1}
    earlier = report({"a": 1}, at_s=600, received_s=0, digest=b"s")
    assert plain([seen, between, earlier]) == plain([earlier, between, seen]) == {"a": 2}


def test_a_time_before_1970_is_the_oldest_of_all() -> None:
    assert state_of([report({"a": 1}, at_s=-3_000_000_000)])["a"].place.at_us == 0


_values = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x"]), max_size=3
)


@st.composite
def _reports(draw: st.DrawFn) -> list[Report]:
    """Reports as they are sent, with ties, nulls, overrides, clocks ahead, and several receipts of the same one."""
    receipts: list[Report] = []
    for number in range(draw(st.integers(1, 7))):
        at_s = draw(st.none() | st.sampled_from([0, 1, 2, 299, 300, 301, 400, 100_000]))
        values, override, digest = (
            draw(_values),
            draw(st.booleans()),
            draw(st.sampled_from([b"p", b"q", b"%d" % number])),
        )
        if any(one.digest == digest for one in receipts):
            digest += b"%d" % number  # what is not the same has another digest
        receipts += [
            report(
                values,
                at_s=at_s,
                received_s=draw(st.sampled_from([0, 1, 2, 100, 299, 300, 400])),
                override=override,
                digest=digest,
            )
            for _ in range(draw(st.integers(1, 3)))
        ]
    return receipts


@given(_reports(), st.data())
def test_any_order_and_any_number_of_deliveries_give_the_same_state(
    receipts: list[Report], data: st.DataObject
) -> None:
    once = state_of(receipts)
    shuffled = data.draw(st.permutations(receipts + data.draw(st.lists(st.sampled_from(receipts), max_size=4))))
    assert state_of(shuffled) == once
    cut = data.draw(st.integers(0, len(shuffled)))
    # In pieces: what is kept of the first is only the earliest receipt of each report.
    assert state_of(earliest(shuffled[:cut]) + earliest(shuffled[cut:])) == once


@given(_reports(), st.integers(-1, 500))
def test_the_state_as_it_was_is_that_of_the_reports_up_to_then(receipts: list[Report], at_s: int) -> None:
    at_us = NOW_US + at_s * SECOND_US
    assert all(entry.place.at_us <= at_us for entry in state_of(receipts, at_us).values())
    assert state_of(receipts, NOW_US + 10**12) == state_of(receipts)
