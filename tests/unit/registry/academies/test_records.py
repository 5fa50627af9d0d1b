"""Which records there are, and the versions that writes of them are given."""

from __future__ import annotations

import multiprocessing
import threading
from datetime import UTC, datetime, timedelta
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select

from midstream.registry.academies.records import Found, Records, Wanted, may_be_record
from midstream.registry.academies.tables import Record
from midstream.registry.engine import open_engine
from midstream.settings import Settings

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
AT_US = 1_772_366_400_123_456
MAX_ID = 2**63 - 1
SECOND = timedelta(seconds=1)


@pytest.fixture
def records(engine: Engine) -> Records:
    return Records(engine)


def one(slug: str = "intro", user: int = 1, writes: int = 1, at: datetime = AT, academy: int = 1) -> Wanted:
    return Wanted(academy, slug, user, writes, at)


def test_a_new_record(records: Records) -> None:
    (made,) = records.reserve([one(writes=3)])
    assert made.created_at == AT
    assert made.first_version == AT_US
    assert made.confirmed is False
    assert made.id >= 1
    assert records.find(1, "intro", 1) == Found(made.id, AT, False)


def test_versions_follow_each_other_and_the_time(records: Records) -> None:
    assert records.reserve([one(writes=3)])[0].first_version == AT_US
    # At the same moment, and when the clock was set back: above all that were given.
    assert records.reserve([one(writes=2)])[0].first_version == AT_US + 3
    assert records.reserve([one(at=AT - timedelta(days=400))])[0].first_version == AT_US + 5
    # When time has passed: the moment.
    assert records.reserve([one(writes=5, at=AT + SECOND)])[0].first_version == AT_US + 1_000_000
    assert records.reserve([one(at=AT + SECOND)])[0].first_version == AT_US + 1_000_005


def test_one_id_for_ever(records: Records) -> None:
    first = records.reserve([one()])[0].id
    records.confirm([first])
    for n in range(3):
        assert records.reserve([one(at=AT + n * SECOND)])[0].id == first


def test_many_are_returned_in_the_order_wanted(records: Records) -> None:
    wanted = [one(f"asset-{n % 7}", user=n, writes=n % 3 + 1) for n in range(200, 0, -1)]
    reserved = records.reserve(wanted)
    assert len({row.id for row in reserved}) == 200
    for given, row in zip(wanted, reserved, strict=True):
        found = records.find(given.academy_id, given.asset_slug, given.user_id)
        assert found is not None
        assert found.id == row.id
    again = records.reserve(list(reversed(wanted)))
    assert [row.id for row in again] == [row.id for row in reversed(reserved)]
    assert [row.first_version for row in again] == [AT_US + given.writes for given in reversed(wanted)]


def test_some_new_and_some_not(records: Records) -> None:
    old = records.reserve([one(user=2)])[0]
    records.confirm([old.id])
    reserved = records.reserve([one(user=3, at=AT + SECOND), one(user=2, at=AT + SECOND), one(user=1, at=AT + SECOND)])
    assert [row.confirmed for row in reserved] == [False, True, False]
    assert [row.created_at for row in reserved] == [AT + SECOND, AT, AT + SECOND]
    assert reserved[1].id == old.id


def test_it_is_one_statement(records: Records, engine: Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))
    records.reserve([one(user=n) for n in range(1, 101)])
    assert len([text for text in statements if "assignment_records" in text]) == 1


def test_nothing_wanted(records: Records) -> None:
    assert records.reserve([]) == []
    assert records.confirm([]) == set()


def test_one_wanted_twice_at_once_is_a_mistake(records: Records) -> None:
    with pytest.raises(ValueError, match="twice"):
        records.reserve([one(), one(writes=2)])


def test_the_same_key_is_all_of_academy_asset_and_user(records: Records) -> None:
    reserved = records.reserve([one(), one("intro2"), one(user=2), one(academy=2), one("INTRO")])
    assert len({row.id for row in reserved}) == 5


@pytest.mark.parametrize("slug", ["é" * 1_024, "日本語/コース", "a b", "%2F", "x" * 1_024, "😀", "a\x01b", "' OR 1=1"])
def test_every_slug_that_can_be_comes_back(records: Records, engine: Engine, slug: str) -> None:
    assert may_be_record(1, slug, 1)
    made = records.reserve([one(slug)])[0]
    assert records.find(1, slug, 1) == Found(made.id, AT, False)
    with engine.connect() as connection:
        assert connection.scalar(select(Record.asset_slug)) == slug


@pytest.mark.parametrize(
    ("academy", "slug", "user"),
    [(1, "", 1), (1, "a\0b", 1), (1, "\ud800", 1), (1, "x" * 1_025, 1), (0, "a", 1), (1, "a", 0), (-1, "a", 1),
     (1, "a", 2**63), (2**63, "a", 1), (1, "a", 10**40)],
)  # fmt: skip
def test_what_can_be_no_record_is_not_there(records: Records, academy: int, slug: str, user: int) -> None:
    assert not may_be_record(academy, slug, user)
    assert records.find(academy, slug, user) is None
    with pytest.raises(ValueError, match="no record"):
        records.reserve([one(), one(slug, user, academy=academy)])
    assert records.find(1, "intro", 1) is None


@pytest.mark.parametrize("writes", [0, -1])
def test_no_write_is_a_mistake(records: Records, writes: int) -> None:
    with pytest.raises(ValueError, match="no write"):
        records.reserve([one(writes=writes)])


def test_the_highest_ids(records: Records) -> None:
    (made,) = records.reserve([one(academy=MAX_ID, user=MAX_ID)])
    assert records.find(MAX_ID, "intro", MAX_ID) == Found(made.id, AT, False)


class TestCreation:
    def test_a_try_that_came_to_nothing_is_not_the_creation(self, records: Records) -> None:
        """A crash between reserve and confirm leaves a reservation, which the next write takes."""
        first = records.reserve([one()])[0]
        soon = records.reserve([one(at=AT + 60 * SECOND)])[0]
        assert (soon.id, soon.created_at) == (first.id, AT)
        late = records.reserve([one(at=AT + 60 * SECOND + timedelta(microseconds=1))])[0]
        assert (late.id, late.created_at) == (first.id, AT + 60 * SECOND + timedelta(microseconds=1))
        assert late.first_version > soon.first_version > first.first_version
        assert records.confirm([late.id]) == {first.id}
        assert records.find(1, "intro", 1) == Found(first.id, late.created_at, True)

    def test_a_confirmed_record_keeps_it(self, records: Records) -> None:
        made = records.reserve([one()])[0]
        records.confirm([made.id])
        later = records.reserve([one(at=AT + timedelta(days=100))])[0]
        assert (later.id, later.created_at, later.confirmed) == (made.id, AT, True)


class TestConfirm:
    def test_once(self, records: Records) -> None:
        ids = [row.id for row in records.reserve([one(user=n) for n in range(1, 6)])]
        assert records.confirm(ids[:2]) == set(ids[:2])
        assert records.confirm(ids) == set(ids[2:])
        assert records.confirm(ids) == set()
        assert records.confirm([10**9]) == set()

    def test_of_two_at_once_one_wins(self, records: Records) -> None:
        ids = [row.id for row in records.reserve([one(user=n) for n in range(1, 101)])]
        together = threading.Barrier(4)
        won: list[set[int]] = []

        def confirm(order: int) -> None:
            together.wait()
            won.append(records.confirm(ids[::order]))

        threads = [threading.Thread(target=confirm, args=(order,)) for order in (1, -1, 1, -1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(len(some) for some in won) == 100
        assert set.union(*won) == set(ids)


def work(home: str, registry: str, name: int, told: Queue[Any], together: Any) -> None:
    """Write the same records as the other process does, in another order, and confirm them."""
    engine = open_engine(Settings(home=Path(home), registry=registry))
    records = Records(engine)
    users = list(range(1, 21))[:: 1 if name else -1]
    together.wait()
    given: list[tuple[int, int, int]] = []
    confirmed: list[int] = []
    for n in range(40):
        at = datetime.now(UTC)
        reserved = records.reserve([one(user=user, writes=1 + (user + n) % 3, at=at) for user in users])
        for user, row in zip(users, reserved, strict=True):
            given += [(row.id, user, row.first_version + i) for i in range(1 + (user + n) % 3)]
        confirmed += records.confirm([row.id for row in reserved])
    engine.dispose()
    told.put((given, confirmed))


def test_two_processes_write_the_same_records(settings: Settings, engine: Engine) -> None:
    """One row and one id each, no version twice, and rising in each process; nobody waits for ever."""
    context = multiprocessing.get_context("spawn")
    told, together = context.Queue(), context.Barrier(2)
    arguments = [(str(settings.home), settings.registry, name, told, together) for name in range(2)]
    processes = [context.Process(target=work, args=some) for some in arguments]
    for process in processes:
        process.start()
    results = [told.get(timeout=90) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Record)) == 20
    everything = [entry for given, _ in results for entry in given]
    assert len({(user, version) for _, user, version in everything}) == len(everything)
    assert len({(id_, user) for id_, user, _ in everything}) == 20
    for given, _ in results:
        for user in range(1, 21):
            versions = [version for _, of, version in given if of == user]
            assert versions == sorted(versions)
    confirmed = [id_ for _, some in results for id_ in some]
    assert len(confirmed) == len(set(confirmed)) == 20
