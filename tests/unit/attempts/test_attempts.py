"""What is remembered of records that a worker failed at or died of."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from midstream.clickhouse.client import ClickHouseError
from processors.attempts import DIED, is_of_the_environment
from processors.attempts.file import SUSPECTS, WHOLE
from processors.lease import LeaseLostError
from tests.unit.attempts.records import TRIES, Record, die, fresh, lane, live_again


def test_a_record_that_goes_through_leaves_nothing() -> None:
    attempts = fresh()
    one = lane(attempts)
    assert one.begin(Record(0, 1)) is None
    one.passed()
    assert not attempts.has_entries
    assert not live_again(attempts).has_entries


def test_a_death_while_nothing_is_under_work_says_nothing() -> None:
    attempts = fresh()
    one = lane(attempts)
    one.begin(Record(0, 1))
    with one.waiting():
        assert not live_again(attempts).has_entries
    assert live_again(attempts).has_entries
    attempts.close()
    assert not live_again(attempts).has_entries
    one.begin(Record(0, 2))  # another lane's record, while the process ends
    assert not live_again(attempts).has_entries


def test_a_helping_thread_keeps_the_record_under_work_while_others_wait() -> None:
    attempts = fresh()
    one = lane(attempts)
    one.begin(Record(0, 1))
    seen: list[bool] = []

    def help_(_: int) -> None:
        seen.append(live_again(attempts).has_entries)
        with attempts.waiting():
            seen.append(live_again(attempts).has_entries)

    with one.waiting():
        thread = threading.Thread(target=one.helping(help_), args=(0,))
        thread.start()
        thread.join()
        seen.append(live_again(attempts).has_entries)
    seen.append(live_again(attempts).has_entries)
    assert seen == [True, False, False, True]


def test_after_its_tries_the_event_is_parked_and_forgotten_once_the_record_is_through() -> None:
    record = Record(2, 7)
    attempts = die(fresh(), record)
    for _ in range(TRIES - 1):
        trial = lane(attempts).begin(record)
        assert trial is not None
        assert not trial.has_parked
        attempts = die(attempts, record, 4)
    one = lane(attempts)
    trial = one.begin(record)
    assert trial is not None
    assert (trial.times_parked(4), trial.times_parked(3), trial.is_whole) == (1, 0, False)
    assert trial.message == DIED
    one.passed()
    # Its offset may not be committed yet: should it come again, it is parked again at once.
    again = lane(live_again(attempts))
    trial = again.begin(record)
    assert trial is not None
    assert trial.times_parked(4) == 1


def test_tries_of_several_events_of_a_record_are_counted_one_after_the_other() -> None:
    record, attempts = Record(0, 7), fresh()
    for index in [4] * TRIES + [9] * TRIES:
        attempts = die(attempts, record, index)
    trial = lane(attempts).begin(record)
    assert trial is not None
    assert [index for index in range(12) if trial.times_parked(index)] == [4, 9]


def test_too_many_bad_events_park_the_record() -> None:
    record, attempts = Record(0, 7), fresh()
    for index in range(8):
        for _ in range(TRIES):
            attempts = die(attempts, record, index)
    trial = lane(attempts).begin(record)
    assert trial is not None
    assert trial.is_whole
    assert not trial.is_unreadable
    for _ in range(TRIES):  # and if parking its rows fails too
        attempts = die(attempts, record, WHOLE)
    trial = lane(attempts).begin(record)
    assert trial is not None
    assert trial.is_unreadable


def test_a_record_that_dies_before_its_events_is_parked_whole() -> None:
    record, attempts = Record(0, 7), fresh()
    for _ in range(TRIES):
        attempts = die(attempts, record)
    trial = lane(attempts).begin(record)
    assert trial is not None
    assert trial.is_whole
    assert trial.is_unreadable


def test_another_value_at_the_same_offset_is_another_record() -> None:
    attempts = fresh()
    for _ in range(TRIES):
        attempts = die(attempts, Record(0, 7, b"old"))
    one = lane(attempts)
    one.begin(Record(0, 8))  # past what was under work: nothing comes alone any more
    one.passed()
    assert one.begin(Record(0, 7, b"new")) is None
    one.passed()
    assert one.begin(Record(1, 7, b"old")) is None


def test_an_error_counts_against_the_record_under_work_only() -> None:
    attempts = fresh()
    one = lane(attempts)
    one.begin(Record(0, 1))
    one.begin(Record(0, 2))
    one.failed(ValueError("bad"))
    attempts = live_again(attempts)
    one = lane(attempts)
    assert [list(part) for part in one.parts([Record(0, 1), Record(0, 2)])] == [[Record(0, 1)], [Record(0, 2)]]
    assert one.begin(Record(0, 1)) is None
    one.passed()
    trial = one.begin(Record(0, 2))
    assert trial is not None
    assert trial.message == "ValueError: bad"
    one.passed()
    assert not attempts._suspects


def test_an_error_where_records_are_written_together_counts_against_none() -> None:
    attempts = fresh()
    one = lane(attempts)
    records = [Record(0, 1), Record(0, 2)]
    for record in records:
        one.begin(record)
    one.joint()
    one.failed(ValueError("bad"))
    attempts = live_again(attempts)
    assert not attempts._suspects
    assert [list(part) for part in lane(attempts).parts(records)] == [[one] for one in records]


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ValueError("x"), True),
        (MemoryError(), True),
        (RecursionError(), True),
        (ClickHouseError("refused", 117), True),
        (MessageSizeTooLargeError(), True),
        (ClickHouseError("away", None), False),
        (ClickHouseError("too many parts", 252), False),
        (KafkaConnectionError(), False),
        (TimeoutError(), False),
        (LeaseLostError(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_the_environment_does_is_not_counted(error: BaseException, counts: bool) -> None:
    assert is_of_the_environment(error) is not counts
    attempts = fresh()
    one = lane(attempts)
    one.begin(Record(0, 1))
    one.failed(error)
    assert live_again(attempts).has_entries is counts


def test_a_full_table_drops_what_is_counted_least() -> None:
    attempts = fresh()
    for _ in range(TRIES):
        attempts = die(attempts, Record(0, 0), 1)
    for offset in range(1, SUSPECTS + 10):
        attempts = die(attempts, Record(0, offset))
    trial = lane(attempts).begin(Record(0, 0))
    assert trial is not None
    assert trial.times_parked(1) == 1
    assert len(attempts._suspects) == SUSPECTS


def test_old_suspicions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = die(fresh(), Record(0, 1))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 24 * 3600)
    assert lane(live_again(attempts)).begin(Record(0, 9)) is None


def test_while_there_is_a_suspect_lanes_take_turns() -> None:
    attempts = die(fresh(), Record(0, 1))
    one, other = attempts.lane("t"), attempts.lane("u")
    one.begin(Record(0, 1))
    begun = threading.Event()

    def work() -> None:
        other.begin(Record(0, 1))
        begun.set()
        other.passed()

    thread = threading.Thread(target=work)
    thread.start()
    assert not begun.wait(0.2)
    one.passed()
    assert begun.wait(5)
    thread.join()


def test_a_record_cleared_in_one_lane_disturbs_no_look_of_another() -> None:
    records = [Record(0, 1), Record(0, 2)]
    attempts = fresh()
    for record in records:
        attempts = die(attempts, record)
    identities = list(attempts._suspects)
    clearing = threading.Thread(target=attempts.acquit, args=(identities[1],))

    class Slow(dict):  # type: ignore[type-arg]
        def values(self) -> Any:
            for value in super().values():
                if clearing.ident is None:
                    clearing.start()
                    clearing.join(0.2)
                yield value

    attempts._suspects = Slow(attempts._suspects)
    attempts.look()
    clearing.join()
    assert list(attempts._suspects) == identities[:1]
