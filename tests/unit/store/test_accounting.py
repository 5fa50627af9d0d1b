"""Settled minutes and generations of topics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiokafka.structs import TopicPartition

from processors.remade import Look, find_remade, join_looks
from processors.store.accounting.generations import CLOCK_MARGIN_MS, First, Published, is_anew
from processors.store.accounting.settled import Minute, Settled

A = TopicPartition("telemetry.valid", 0)
T = 1_790_000_000_000


def test_a_minute_is_asked_for_until_nothing_in_it_is_in_flight() -> None:
    settled = Settled(0)
    assert settled.take([Minute(0, 0, 0), Minute(60, 5, 0), Minute(120, 0, 0)], 180, 10_000) == []
    assert (settled.since_s, settled.in_flight, settled.wrong) == (60, 5, 0)
    settled.begin()
    assert settled.take([Minute(60, 0, 2), Minute(120, 0, 0)], 240, 10_000) == [Minute(60, 0, 2)]
    assert (settled.since_s, settled.in_flight, settled.wrong) == (240, 0, 0)


def test_a_minute_that_is_not_complete_stays_open() -> None:
    settled = Settled(0)
    minutes = [Minute(0, 0, 0), Minute(60, 0, 3)]
    assert settled.take(minutes, 180, 119) == []
    assert (settled.since_s, settled.wrong) == (60, 3)
    settled.begin()
    assert settled.take([Minute(60, 0, 0)], 180, 120) == []
    assert (settled.since_s, settled.wrong) == (120, 0)


def test_a_minute_behind_an_open_one_waits_for_it_in_a_later_portion_too() -> None:
    settled = Settled(0)
    settled.take([Minute(0, 1, 0)], 60, 10_000)
    assert settled.take([Minute(60, 0, 4)], 120, 10_000) == []
    assert (settled.since_s, settled.in_flight, settled.wrong) == (0, 1, 4)


def test_nothing_is_settled_before_anything_is_complete() -> None:
    settled = Settled(600)
    assert settled.take([Minute(600, 0, 1)], 1_200, 0) == []
    assert (settled.since_s, settled.wrong) == (600, 1)


KNOWN = Published(complete=500, since_ms=T, published_ms=T + 5_000)


@pytest.mark.parametrize(
    ("known", "first", "end", "expected"),
    [
        (KNOWN, First(0, T), 700, False),
        (KNOWN, First(0, T), 499, True),  # it ends before what was complete
        (KNOWN, None, 0, True),
        (KNOWN, None, 500, False),  # retention has deleted everything
        (KNOWN, First(0, T + 60_000), 900, True),  # it has grown past what was complete, but begins with another record
        (KNOWN, First(300, T + 2_000), 900, False),  # retention has deleted the first
        (KNOWN, First(600, T + 900_000), 900, False),
        (KNOWN, First(300, T + 5_001 + CLOCK_MARGIN_MS), 900, True),  # appended after it was complete
        (replace(KNOWN, since_ms=0), First(0, T), 900, False),  # published before generations were told apart
        (replace(KNOWN, since_ms=0), First(0, T + 900_000), 900, True),
        (Published(0, 0, T), First(0, T + 900_000), 900, False),  # it was empty
    ],
)
def test_a_topic_made_anew_is_told_by_its_offsets_and_times(
    known: Published, first: First | None, end: int, expected: bool
) -> None:
    assert is_anew(known, first, end) is expected


BEFORE = Look({A: 10}, {A: 12}, {A: (3, T)})


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (Look({A: 12}, {A: 15}, {A: (3, T)}), ""),
        (Look({A: 12}, {A: 15}, {A: (9, T + 1)}), ""),  # retention
        (Look({A: 12}, {A: 12}, {A: None}), ""),
        (Look({A: 0}, {A: 15}, {A: (3, T)}), ""),  # an operator set the group back
        (Look({A: 10}, {A: 11}, {A: (3, T)}), "ends before"),
        (Look({}, {A: 40}, {A: (3, T)}), "is gone"),
        (Look({A: 10}, {A: 40}, {A: (0, T + 9)}), "begins with"),
        (Look({A: 10}, {A: 40}, {A: (3, T + 9)}), "begins with"),
        (Look({A: 50}, {A: 40}, {A: (3, T)}), "beyond"),
        (Look({}, {}, {}), ""),  # away, or not known to a broker that has just started
    ],
)
def test_a_worker_notices_that_its_topic_was_made_anew(now: Look, found: str) -> None:
    reason = find_remade(BEFORE, now)
    assert found in reason
    assert bool(found) == bool(reason)


def test_a_topic_that_was_away_between_two_looks_is_compared_with_the_one_before() -> None:
    known = join_looks(BEFORE, Look({}, {}, {}))
    assert find_remade(known, Look({A: 0}, {A: 1}, {A: (0, T + 9)}))
