"""What is remembered of records that a worker failed at or died of."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from midstream.clickhouse.client import ClickHouseError
from midstream.settings import Settings
from processors.attempts import DIED, Attempts, AttemptsError, Lane, is_of_the_environment
from processors.attempts.file import FILE_BYTES, SUSPECTS, WHOLE
from processors.lease import LeaseLostError

GROUP = "g"
TRIES = 3


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    value: bytes = b"v"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, record_tries=TRIES, worker_id="w")


def live_again(attempts: Attempts) -> Attempts:
    """Return what the next life of the process finds in the file."""
    memory = mmap.mmap(-1, FILE_BYTES)
    memory[:] = attempts._memory[:]
    return Attempts(memory, TRIES)


def lane(attempts: Attempts) -> Lane:
    return attempts.lane("t")


def die(attempts: Attempts, record: Record, index: int | None = None) -> Attempts:
    """Work on a record and die of it, at an event if one is given."""
    one = lane(attempts)
    one.begin(record)
    if index is not None:
        one.at(index)
    return live_again(attempts)


def fresh() -> Attempts:
    return Attempts.in_memory(TRIES)


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


class TestFile:
    def test_two_workers_never_share_one(self, settings: Settings) -> None:
        first, second = Attempts.open(settings, GROUP), Attempts.open(settings, GROUP)
        lane(first).begin(Record(0, 1))
        first.sync()
        assert not lane(second)._attempts.has_entries
        assert sorted(path.name for path in (settings.home / "attempts").iterdir()) == ["g-w", "g-w.1"]

    def test_what_is_no_such_file_is_made_anew(self, settings: Settings) -> None:
        folder = settings.home / "attempts"
        folder.mkdir()
        (folder / "g-w").write_bytes(b"something else")
        assert not Attempts.open(settings, GROUP).has_entries
        assert (folder / "g-w").stat().st_size == FILE_BYTES

    def test_a_folder_that_cannot_be_used_is_named(self, settings: Settings) -> None:
        (settings.home / "attempts").write_text("a file")
        with pytest.raises(AttemptsError, match="attempts"):
            Attempts.open(settings, GROUP)

    @pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()", "os._exit(1)"])
    def test_it_outlives_the_process(self, settings: Settings, end: str) -> None:
        code = (
            "import os, signal, sys\n"
            "from tests.unit.test_attempts import Record, GROUP\n"
            "from midstream.settings import Settings\n"
            "from processors.attempts import Attempts\n"
            f"settings = Settings(home={str(settings.home)!r}, worker_id='w')\n"
            "lane = Attempts.open(settings, GROUP).lane('t')\n"
            "lane.begin(Record(3, 9))\n"
            "lane.at(5)\n"
            f"{end}\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60, check=False)
        assert done.returncode in (0, 1, -signal.SIGKILL)
        attempts = Attempts.open(settings, GROUP)
        if end == "sys.exit()":
            assert not attempts.has_entries  # a clean stop leaves no mark
            return
        (suspect,) = attempts._suspects.values()
        assert (suspect.identity.topic, suspect.identity.partition, suspect.identity.offset) == ("t", 3, 9)
        assert (suspect.index, suspect.tries) == (5, 1)
