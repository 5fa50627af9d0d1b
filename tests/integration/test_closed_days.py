"""Days that are over close at a later start, by themselves, and not before all that was received in them is through."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from deploy.local.orphans import find_processes
from tests.integration.closed_days import (
    EAST,
    NOBODY,
    WEST,
    ClosedDays,
    complete_until,
    midnight_after,
    wait_closed,
)
from tests.integration.outside import Outside, make_body, make_event, stop_process
from tests.integration.partners import Partner, error_of
from tests.support.faketime import Clock, why_no_faketime
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why_no_faketime()), reason=why_no_faketime()),
]


def at(days_ago: int) -> datetime:
    """Return ten o'clock of a day before this one, UTC."""
    return datetime.combine(datetime.now(UTC).date() - timedelta(days=days_ago), time(10), UTC)


def post(outside: Outside, count: int = 3) -> tuple[str, list[str]]:
    """Post events; return their batch and their mids. The reply may tell another clock's time."""
    events = [make_event() for _ in range(count)]
    response = outside.post(make_body(events))
    assert response.status_code == 200, response.text
    return response.headers["x-batch-id"], [event["mid"] for event in events]


@contextmanager
def clients(pipeline: Pipeline) -> Iterator[Outside]:
    found = Outside(pipeline)
    try:
        yield found
    finally:
        found.close()


def received(outside: Outside, batch_id: str) -> datetime:
    found: datetime = outside.value("SELECT received_at FROM batches WHERE batch_id = {id:String}", id=batch_id)
    return found


def wait_for_marks(outside: Outside, since: datetime) -> None:
    """Wait until the accounting has read a mark of a collector that is at work since then."""
    sql = "SELECT count() FROM collectors WHERE open AND low > {since:DateTime64(3)}"
    wait_until("a collector's mark is known", lambda: outside.value(sql, since=since), 40, 0.25)


def test_days_close_at_a_start_two_days_later_and_at_midnight(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock", at(days_ago=3))
    pipeline = Pipeline(tmp_path / "home", clock=clock)
    day = clock.now().date()
    with pipeline, clients(pipeline) as outside:
        batch_id, mids = post(outside)
        outside.settle([batch_id])
        assert set(outside.events(mids)) == set(mids)
        assert received(outside, batch_id).date() == day
        assert complete_until(outside) < clock.now() < midnight_after(day)
    clock.set(at(days_ago=1))
    # With one collector where there were two: what the other has promised holds nothing back.
    with Pipeline(tmp_path / "home", clock=clock, web_workers=1) as later, clients(later) as outside:
        wait_closed(outside, day)
        wait_closed(outside, day + timedelta(days=1))  # of which there is nothing at all
        # The day that this clock shows goes on, whatever comes and is through.
        this_day = clock.now().date()
        batch_id, _ = post(outside)
        outside.settle([batch_id])
        wait_for_marks(outside, received(outside, batch_id))
        assert complete_until(outside) < clock.now() < midnight_after(this_day)
        # It ends while the pipeline runs, and what came last is in it.
        clock.set(midnight_after(this_day) - timedelta(seconds=8))
        batch_id, mids = post(outside)
        wait_closed(outside, this_day)
        assert {row["received_at"].date() for row in outside.events(mids).values()} == {this_day}
        assert len(outside.events(mids)) == len(mids)
        outside.wait_accounted()


def test_a_killed_collectors_spool_holds_its_day_open_until_it_is_drained(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock", at(days_ago=2))
    pipeline = Pipeline(tmp_path / "home", clock=clock)
    day = clock.now().date()
    with pipeline:
        with clients(pipeline) as outside:
            before, _ = post(outside)
            outside.settle([before])
            stop_process(pipeline, "kafka")
            spooled, mids = post(outside)
        kill_all(pipeline)
    pipeline.use_clock(None)
    with ExitStack() as held:
        # As if somebody else had the spool: the new collectors cannot get at it.
        for lock in slots(pipeline):
            held.enter_context(flock(lock))
        began = datetime.now(UTC)
        with pipeline, clients(pipeline) as outside:
            after, _ = post(outside)
            outside.settle([after])
            wait_for_marks(outside, began)
            assert complete_until(outside) < midnight_after(day)
            assert outside.events(mids) == {}
            outside.cli("dataset", "declare", "--name", "everything", "--resource", "channel")
            partner = Partner(outside, ("everything", make_event()["context"]["channel"]))
            url = partner.url(day, day)
            refused = partner.post(url)
            assert error_of(refused) == (503, "INTERNAL_ERROR")
            assert str(day) in refused.json()["params"]["errmsg"]
            assert int(refused.headers["retry-after"]) > 0
            held.close()
            wait_closed(outside, datetime.now(UTC).date() - timedelta(days=1))
            # Closed, and so it is all there, at once.
            stored = outside.events(mids)
            assert set(stored) == set(mids)
            assert {row["received_at"].date() for row in stored.values()} == {day}
            assert {row["batch_id"] for row in stored.values()} == {spooled}
            assert complete_until(outside) < datetime.now(UTC)  # this day is not over
            lines = partner.archive(day, day).lines(day)
            assert {line["mid"] for line in lines} > set(mids)  # and what came before it was killed
            assert len(lines) == 2 * len(mids)
            assert {line["receipt"]["batch_id"] for line in lines} == {before, spooled}
            outside.wait_accounted()


def kill_all(pipeline: Pipeline) -> None:
    """End all processes with SIGKILL, those first that would look after the others."""
    launcher = pipeline.launcher_pid
    pipeline.kill_launcher()
    for process in sorted(find_processes(pipeline.home), key=lambda process: process.create_time()):
        process.kill()
    pipeline.wait_gone(10)
    Clock.tidy(launcher)


def slots(pipeline: Pipeline) -> list[Path]:
    """Return the lock files of the spool, in which something must lie."""
    spool = pipeline.home.root / "spool"
    locks = sorted(spool.glob("*/lock"))
    assert locks
    assert [path for path in spool.glob("*/*") if path.name not in ("lock", "state.json")]
    return locks


@contextmanager
def flock(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def lock() -> bool:
        with suppress(BlockingIOError):  # the last threads of a killed process go after it is a zombie
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    try:
        wait_until("nobody has the slot", lock, 10)
        yield
    finally:
        os.close(fd)


def test_the_three_days_hold_what_was_sent(closed_days: ClosedDays) -> None:
    assert complete_until(closed_days.outside) >= midnight_after(closed_days.days[-1])
    first, second, third = closed_days.days
    assert {one.channel for one in closed_days.of(WEST)} == {"north", "south"}
    assert [len(closed_days.of(EAST, day)) for day in (first, second, third)] == [48, 0, 48]
    assert [len(closed_days.of(WEST, day)) for day in (first, second, third)] == [32, 24, 32]
    assert [len(closed_days.of(WEST, second, hour)) for hour in (0, 9, 10, 11, 23)] == [6, 6, 6, 0, 6]
    assert closed_days.of(NOBODY) == []
    assert {"\n" in one.text for one in closed_days.of(WEST, second)} == {True, False}
    assert any("\u2028" in one.text for one in closed_days.of(WEST, second))
    until = midnight_after(third)  # other tests may have sent something since
    sql = "SELECT mid, raw FROM events WHERE received_at < {until:DateTime64(3)}"
    raws = closed_days.outside.rows(sql, until=until)
    assert {row["mid"]: row["raw"] for row in raws} == {one.mid: one.text for one in closed_days.sent}
    sql = "SELECT toDate(minute) AS day, sum(in_flight + unaccounted) AS open FROM accounting GROUP BY day ORDER BY day"
    assert closed_days.outside.rows(sql)[:3] == [{"day": day, "open": 0} for day in closed_days.days]
