"""Of records that were under work together, the one at fault is found by halves."""

from __future__ import annotations

import time

import pytest

from processors.attempts import Attempts
from tests.unit.attempts.records import TRIES, Record, die, fresh, lane, live_again


def die_in_parts(attempts: Attempts, records: list[Record], *, part: int = 0) -> Attempts:
    """Die while the records of this part are under work together."""
    one = attempts.lane("m", mixes=True)
    for number, taken in enumerate(one.parts(records)):
        for record in taken:
            one.begin(record)
        if number == part:
            return live_again(attempts)
        one.passed()
    raise AssertionError


def parts(attempts: Attempts, records: list[Record]) -> list[list[Record]]:
    return [list(part) for part in attempts.lane("m", mixes=True).parts(records)]


def test_of_records_that_were_under_work_together_the_one_at_fault_is_found() -> None:
    records = [Record(0, offset) for offset in range(40)]
    attempts = die_in_parts(fresh(), records)
    more = [*records, Record(0, 40), Record(1, 0), Record(0, 41)]
    assert [len(part) for part in parts(attempts, more)] == [5] * 8 + [3]
    assert not attempts._suspects  # nobody knows yet

    attempts = die_in_parts(live_again(die_in_parts(fresh(), records)), records, part=1)
    assert [len(part) for part in parts(live_again(attempts), records)] == [1] * 10 + [30]
    assert not attempts._suspects

    attempts = die_in_parts(attempts, records, part=7)
    (suspect,) = attempts._suspects.values()
    assert suspect.identity.offset == 7


def test_records_set_apart_among_others_do_not_make_each_come_alone() -> None:
    attempts = die_in_parts(fresh(), [Record(0, offset) for offset in range(64)])
    mixed = [Record(partition, offset) for offset in range(64) for partition in (0, 1)]
    found = parts(attempts, [*mixed, *(Record(1, offset) for offset in range(64, 200))])
    assert [record for part in found for record in part][:128] == mixed
    assert [len(part) for part in found] == [8] * 16 + [136]


def test_what_comes_after_records_set_apart_comes_together_again() -> None:
    attempts = die_in_parts(fresh(), [Record(0, 1), Record(1, 5), Record(0, 2)])
    records = [Record(0, 1), Record(1, 5), Record(0, 2)]
    later = [Record(0, 3), Record(0, 4), Record(1, 6)]
    assert parts(attempts, [*records, *later]) == [[one] for one in records] + [later]
    assert parts(attempts, later) == [later]
    assert not attempts.has_entries


def test_records_far_below_those_set_apart_come_together() -> None:
    """Offsets were set back, or the topic was made anew."""
    attempts = die_in_parts(fresh(), [Record(0, offset) for offset in range(1_000_000, 1_000_004)])
    records = [Record(0, offset) for offset in range(40)]
    assert parts(attempts, records) == [records]
    assert [len(part) for part in parts(attempts, [Record(0, offset) for offset in range(1_000_000, 1_000_008)])] == [
        *[1] * 4,
        4,
    ]


def test_records_come_apart_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set apart may have gone to another worker, and never come again."""
    records = [Record(0, 1), Record(1, 5), Record(0, 2)]
    attempts = die_in_parts(fresh(), records)
    others = [Record(2, 7), Record(2, 8)]
    assert parts(attempts, others) == [others]
    assert attempts.is_careful
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 599)
    assert parts(live_again(attempts), records) == [[one] for one in records]
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert parts(live_again(attempts), records) == [records]
    assert parts(attempts, others) == [others]
    assert not attempts.has_entries


def test_a_record_alone_is_at_fault_itself() -> None:
    attempts = die_in_parts(fresh(), [Record(0, 1)])
    assert [suspect.identity.offset for suspect in attempts._suspects.values()] == [1]


def test_one_of_several_events_is_found_before_it_is_parked() -> None:
    record, attempts = Record(0, 1), fresh()
    for tries in range(1, TRIES + 1):
        one = lane(attempts)
        one.begin(record)
        one.at(64, 64)
        attempts = live_again(attempts)
        trial = lane(attempts).begin(record)
        assert trial is not None
        assert not trial.has_parked
        assert (trial.is_suspected(64, 128), trial.is_suspected(100, 101)) == (True, True)
        # When the tries are used up, all come one by one.
        elsewhere = tries == TRIES
        assert (trial.is_suspected(0, 64), trial.is_suspected(128, 192)) == (elsewhere, elsewhere)
    attempts = die(attempts, record, 70)
    trial = lane(attempts).begin(record)
    assert trial is not None
    assert trial.times_parked(70) == 1
