"""Requests: one for the same, one builder at a time, nothing that waits for ever."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from midstream.exhaust.variant import Variant
from midstream.registry.exhaust import requests as requests_module
from midstream.registry.exhaust.errors import NotThereError, TooManyError
from midstream.registry.exhaust.licences import Licences
from midstream.registry.exhaust.requests import (
    MAX_ATTEMPTS,
    MAX_OPEN,
    REMEMBERED,
    Ask,
    Done,
    Progress,
    RequestRow,
    Requests,
)
from midstream.registry.exhaust.tables import Licence, Request

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
DAY = date(2026, 1, 31)
ASK = Ask("D001", HASH, DAY - timedelta(days=1), DAY, Variant())
LEASE_S = 30.0
QUOTA = 1_000


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(seconds=1)

    def __call__(self) -> datetime:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def requests(engine: Engine, clock: Clock) -> Requests:
    return Requests(engine, clock)


@pytest.fixture
def licence(engine: Engine) -> int:
    return make_licence(engine, "partner")


def make_licence(engine: Engine, name: str) -> int:
    Licences(engine).create(name, [("D001", HASH)])
    with engine.connect() as connection:
        return connection.scalars(select(Licence.id).where(Licence.name == name)).one()


def another(number: int) -> Ask:
    return replace(ASK, first=DAY - timedelta(days=number + 2))


def done(clock: Clock, **more: Any) -> Done:
    return Done(
        **{"tag": "t", "days_built": 2, "events": 7, "bytes": 100, "expires_at": clock.now + timedelta(hours=1)} | more
    )


def finish(requests: Requests, clock: Clock, owner: str = "a", **more: Any) -> RequestRow:
    row = requests.claim(owner, LEASE_S)
    assert row is not None
    assert requests.succeed(row.id, owner, done(clock, **more), QUOTA)
    found = requests.get(row.id)
    assert found is not None
    return found


class TestSubmit:
    def test_what_was_asked_for_is_read_again(self, requests: Requests, licence: int, clock: Clock) -> None:
        ask = replace(ASK, variant=Variant("csv", ("LOG",), ("a", "b")))
        assert requests.find(licence, ask) is None
        row = requests.submit(licence, ask)
        assert (row.ask, row.status, row.licence_id, row.submitted_at) == (ask, "SUBMITTED", licence, clock.now)
        assert (row.completed_at, row.expires_at, row.message, row.tag) == (None, None, None, None)
        assert requests.get(row.id) == requests.get(row.id, licence) == requests.find(licence, ask) == row

    def test_the_same_again_is_the_same(self, requests: Requests, licence: int, clock: Clock) -> None:
        first = requests.submit(licence, ASK)
        assert requests.submit(licence, ASK).id == first.id
        requests.claim("a", LEASE_S)
        assert requests.submit(licence, ASK).status == "PROCESSING"
        assert requests.succeed(first.id, "a", done(clock), QUOTA)
        assert requests.submit(licence, ASK).id == first.id
        clock.after(3_600)
        assert requests.submit(licence, ASK).id != first.id

    def test_what_failed_is_asked_for_anew(self, requests: Requests, licence: int) -> None:
        first = requests.submit(licence, ASK)
        requests.claim("a", LEASE_S)
        assert requests.fail(first.id, "a", "why")
        assert requests.submit(licence, ASK).id != first.id

    @pytest.mark.parametrize(
        "change",
        [
            {"dataset": "D002"}, {"resource": HASH[:32]}, {"first": DAY}, {"last": DAY - timedelta(days=1)},
            {"variant": Variant("csv")}, {"variant": Variant(eids=("LOG",))}, {"variant": Variant(channels=("LOG",))},
        ],
        ids=str,
    )  # fmt: skip
    def test_another_ask_is_another(self, requests: Requests, licence: int, change: dict[str, Any]) -> None:
        assert requests.submit(licence, replace(ASK, **change)).id != requests.submit(licence, ASK).id

    def test_of_another_licence(self, requests: Requests, engine: Engine, licence: int) -> None:
        other = make_licence(engine, "other")
        row = requests.submit(licence, ASK)
        assert requests.find(other, ASK) is None
        assert requests.get(row.id, other) is None
        assert requests.submit(other, ASK).id != row.id

    def test_so_many_may_be_open(self, requests: Requests, engine: Engine, licence: int, clock: Clock) -> None:
        for number in range(MAX_OPEN):
            requests.submit(licence, another(number))
        with pytest.raises(TooManyError, match=str(MAX_OPEN)):
            requests.submit(licence, ASK)
        assert requests.submit(licence, another(0))
        clock.after(1)  # the oldest is built first, and that is to be one of this licence
        assert requests.submit(make_licence(engine, "other"), ASK)
        finish(requests, clock)
        assert requests.submit(licence, ASK)

    def test_so_many_may_be_kept(
        self, requests: Requests, licence: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(requests_module, "MAX_KEPT", 3)
        for number in range(3):
            requests.submit(licence, another(number))
            finish(requests, clock)
        with pytest.raises(TooManyError):
            requests.submit(licence, ASK)
        clock.after(3_600)
        assert requests.submit(licence, ASK)

    def test_many_at_once_make_one(self, requests: Requests, licence: int) -> None:
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(requests.submit(licence, ASK).id)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(found) == 8
        assert len(set(found)) == 1

    def test_a_licence_made_anew_has_nothing_of_before(
        self, requests: Requests, engine: Engine, licence: int, clock: Clock
    ) -> None:
        for number in range(2):
            requests.submit(licence, another(number))
        former = finish(requests, clock)
        Licences(engine).revoke("partner")
        clock.after(1)
        assert make_licence(engine, "partner") == licence
        with engine.begin() as connection:
            connection.execute(Licence.__table__.update().values(created_at=clock.now))  # type: ignore[attr-defined]
        assert requests.get(former.id) is None
        assert requests.page(licence, limit=9) == []
        assert requests.find(licence, former.ask) is None
        assert not requests.is_any_waiting()
        assert requests.claim("a", LEASE_S) is None
        requests.expire()
        assert requests.count_open() == 0


class TestPage:
    def test_the_newest_first(self, requests: Requests, engine: Engine, licence: int, clock: Clock) -> None:
        requests.submit(make_licence(engine, "other"), ASK)
        made = []
        for number in range(7):
            made.append(requests.submit(licence, another(number)).id)
            clock.after(number % 2)  # some at the same moment
        pages, after = [], None
        while page := requests.page(licence, limit=3, after=after):
            pages.append([row.id for row in page])
            after = pages[-1][-1]
        assert [len(page) for page in pages] == [3, 3, 1]
        listed = [one for page in pages for one in page]
        assert sorted(listed) == sorted(made)
        assert listed[0] == made[6] or listed[0] == made[5]
        times = [row.submitted_at for row in requests.page(licence, limit=9)]
        assert times == sorted(times, reverse=True)

    def test_after_anothers(self, requests: Requests, engine: Engine, licence: int) -> None:
        row = requests.submit(make_licence(engine, "other"), ASK)
        for after in (row.id, "nothing"):
            with pytest.raises(NotThereError):
                requests.page(licence, limit=3, after=after)


class TestBuilding:
    def test_the_oldest_first_and_each_once(self, requests: Requests, licence: int, clock: Clock) -> None:
        made = []
        for number in range(3):
            made.append(requests.submit(licence, another(number)).id)
            clock.after(1)
        claimed = [requests.claim(owner, LEASE_S) for owner in "abc"]
        assert [row.id for row in claimed if row] == made
        assert requests.claim("d", LEASE_S) is None
        assert not requests.is_any_waiting()

    def test_many_at_once_claim_each_once(self, requests: Requests, licence: int) -> None:
        made = {requests.submit(licence, another(number)).id for number in range(8)}
        found: list[str] = []

        def claim(owner: str) -> None:
            while (row := requests.claim(owner, LEASE_S)) is not None:
                found.append(row.id)

        threads = [threading.Thread(target=claim, args=(owner,)) for owner in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(found) == 8
        assert set(found) == made

    def test_progress_renews_the_lease(self, requests: Requests, licence: int, clock: Clock) -> None:
        made = requests.submit(licence, ASK)
        requests.claim("a", LEASE_S)
        for number in range(5):
            clock.after(LEASE_S - 1)
            assert requests.progress(made.id, "a", LEASE_S, Progress("t", 1, number, 50))
            assert requests.claim("b", LEASE_S) is None
        row = requests.get(made.id)
        assert row is not None
        assert (row.status, row.days_built, row.events, row.percent, row.tag) == ("PROCESSING", 1, 4, 50, "t")
        assert requests.live_tags([made.id, "other"]) == {made.id: "t"}

    def test_who_lost_the_lease_changes_nothing(self, requests: Requests, licence: int, clock: Clock) -> None:
        made = requests.submit(licence, ASK)
        requests.claim("a", LEASE_S)
        clock.after(LEASE_S)
        assert requests.is_any_waiting()
        taken = requests.claim("b", LEASE_S)
        assert taken is not None
        assert taken.id == made.id
        assert not requests.progress(made.id, "a", LEASE_S, Progress("t", 1, 1, 1))
        assert not requests.succeed(made.id, "a", done(clock), QUOTA)
        assert not requests.fail(made.id, "a", "why")
        assert not requests.release(made.id, "a")
        assert requests.get(made.id) == taken
        assert requests.succeed(made.id, "b", done(clock), QUOTA)

    def test_what_kills_each_builder_is_given_up(self, requests: Requests, licence: int, clock: Clock) -> None:
        made = requests.submit(licence, ASK)
        for _ in range(MAX_ATTEMPTS):
            assert requests.claim("a", LEASE_S)
            clock.after(LEASE_S)
        assert requests.claim("a", LEASE_S) is None
        row = requests.get(made.id)
        assert row is not None
        assert row.status == "FAILED"
        assert str(MAX_ATTEMPTS) in (row.message or "")

    def test_what_is_given_back_waits_and_was_not_tried(self, requests: Requests, licence: int) -> None:
        made = requests.submit(licence, ASK)
        for _ in range(MAX_ATTEMPTS + 2):
            assert requests.claim("a", LEASE_S)
            assert requests.release(made.id, "a")
        assert requests.claim("b", LEASE_S)

    def test_the_end(self, requests: Requests, licence: int, clock: Clock) -> None:
        requests.submit(licence, ASK)
        row = finish(requests, clock)
        assert (row.status, row.completed_at) == ("SUCCESS", clock.now)
        assert (row.days_built, row.events, row.bytes, row.percent, row.tag) == (2, 7, 100, 100, "t")
        assert requests.finished(limit=9) == [row]
        assert not requests.progress(row.id, "a", LEASE_S, Progress("t", 1, 1, 1))

    def test_what_is_finished_is_read_page_by_page(self, requests: Requests, licence: int, clock: Clock) -> None:
        for number in range(5):
            requests.submit(licence, another(number))
            finish(requests, clock)
        requests.submit(licence, ASK)
        found, after = [], ""
        while page := requests.finished(limit=2, after=after):
            found += [row.id for row in page]
            after = found[-1]
        assert found == sorted(found)
        assert len(set(found)) == 5

    def test_no_more_than_the_quota(self, requests: Requests, engine: Engine, licence: int, clock: Clock) -> None:
        for number in range(3):
            requests.submit(licence, another(number))
        finish(requests, clock, bytes=600)
        row = requests.claim("a", LEASE_S)
        assert row is not None
        assert not requests.succeed(row.id, "a", done(clock, bytes=401), QUOTA)
        assert requests.succeed(row.id, "a", done(clock, bytes=400), QUOTA)
        assert requests.held_bytes(licence) == requests.held_bytes() == 1_000
        assert requests.held_bytes(licence + 1) == 0
        clock.after(3_600)
        assert requests.held_bytes(licence) == 0
        finish(requests, clock, bytes=1_000)

    def test_the_quota_holds_when_two_end_at_once(self, requests: Requests, licence: int, clock: Clock) -> None:
        rows = [requests.submit(licence, another(number)) for number in range(4)]
        for _ in rows:
            requests.claim("a", LEASE_S)
        ended: list[bool] = []

        def end(row: RequestRow) -> None:
            ended.append(requests.succeed(row.id, "a", done(clock, bytes=300), QUOTA))

        threads = [threading.Thread(target=end, args=(row,)) for row in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(ended) == [False, True, True, True]

    def test_what_changed_is_built_anew(self, requests: Requests, licence: int, clock: Clock) -> None:
        requests.submit(licence, ASK)
        row = finish(requests, clock)
        assert not requests.reopen(row.id, "other")
        assert requests.reopen(row.id, "t")
        assert not requests.reopen(row.id, "t")
        again = requests.get(row.id)
        assert again is not None
        assert (again.status, again.bytes, again.days_built, again.tag) == ("SUBMITTED", 0, 0, None)
        assert requests.live_tags([row.id]) == {}
        assert finish(requests, clock).id == row.id


class TestExpire:
    def test_it_is_over_at_its_moment(self, requests: Requests, licence: int, clock: Clock) -> None:
        requests.submit(licence, ASK)
        row = finish(requests, clock)
        assert requests.expire() == 0
        assert requests.live_tags([row.id]) == {row.id: "t"}
        clock.after(3_600)
        for _ in range(2):
            found = requests.get(row.id)
            assert found is not None
            assert found.status == "EXPIRED"
            assert requests.finished(limit=9) == []
            assert requests.live_tags([row.id]) == {}
            requests.expire()

    def test_it_is_forgotten_later(self, requests: Requests, engine: Engine, licence: int, clock: Clock) -> None:
        waiting = requests.submit(licence, another(1))
        requests.claim("x", 1e9)
        requests.submit(licence, ASK)
        finish(requests, clock)
        clock.after(REMEMBERED.total_seconds() - 1)
        requests.expire()
        assert len(requests.page(licence, limit=9)) == 2
        clock.after(2)
        requests.expire()
        assert [row.id for row in requests.page(licence, limit=9)] == [waiting.id]
        with engine.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(Request)) == 1
