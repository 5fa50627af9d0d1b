"""`kill -9` of `jobs` in the middle of a correction and of an erasure, and a backup that brings an erased user back.

Whoever counts and reads events meanwhile never sees fewer, more, or half of a change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import update

from midstream.registry.engine import open_engine
from midstream.registry.sync.tables import SyncJob
from midstream.settings import Settings
from tests.integration.jobs import begin_delete, begin_sync, copies, done, push, push_and_wait, tables_naming
from tests.integration.outside import Outside, Row, make_event, start_process, stop_process, unique
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

EVENTS = 40
_SHOWN = """
SELECT argMax((type, erasing, length(hidden)), generation) AS shown FROM correction_rows WHERE slot = 1
"""


@pytest.fixture(scope="module")
def outside(quiet: Pipeline) -> Iterator[Outside]:
    with closing(Outside(quiet)) as clients:
        yield clients


class Watch:
    """Looks at events each 50 ms, in a thread and with a client of its own, from before a change until after it."""

    def __init__(self, pipeline: Pipeline, sql: str, **parameters: Any) -> None:
        self._pipeline = pipeline
        self._sql = sql
        self._parameters = parameters
        self.looks = 0
        self.seen: list[tuple[Any, ...]] = []
        """Each answer that is another than the one before it."""
        self.error: Exception | None = None

    @contextmanager
    def looking(self) -> Iterator[Watch]:
        """Look until the block ends."""
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,))
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join(30)
        assert self.error is None, self.error
        assert not thread.is_alive()

    def _look(self, stop: threading.Event) -> None:
        try:
            with closing(Outside(self._pipeline)) as outside:
                while not stop.wait(0.05):
                    answer = tuple(outside.row(self._sql, **self._parameters).values())
                    self.looks += 1
                    if not self.seen or self.seen[-1] != answer:
                        self.seen.append(answer)
        except Exception as error:  # noqa: BLE001 - told where the block ends
            self.error = error


def shown(outside: Outside) -> tuple[str, int, int]:
    """Return what the view lays over events: a type of objects, the number of an erasure, how many mids it hides."""
    type_, erasing, hidden = outside.value(_SHOWN)
    return type_, erasing, hidden


def kill_when(outside: Outside, what: str, is_so: Callable[[tuple[str, int, int]], bool]) -> None:
    """Kill `jobs` as soon as something is shown, and wait until it runs again."""
    wait_until(what, lambda: is_so(shown(outside)), 60, 0.02)
    killed = outside.pipeline.kill("jobs")
    assert is_so(shown(outside)), "it was over before"
    wait_until("jobs runs again", lambda: outside.pipeline.pid_of("jobs") not in (0, killed), 30)


def end_leases(outside: Outside) -> None:
    """Let the lease of who was killed run out now, not 30 s later."""
    engine = open_engine(Settings.model_validate({"home": outside.pipeline.home.root}))
    try:
        with engine.begin() as connection:
            ending = update(SyncJob).where(SyncJob.status == "running").values(lease_until=datetime.now(UTC))
            assert connection.execute(ending).rowcount == 1
    finally:
        engine.dispose()


def send_events(outside: Outside, user: str) -> tuple[list[str], str]:
    """Store events of a user in both event tables; return their mids and the batch."""
    events = [make_event(("INTERACT", "LOG")[number % 2], actor=user) for number in range(EVENTS)]
    batch_id = outside.send(events)
    outside.settle([batch_id])
    return [event["mid"] for event in events], batch_id


def test_a_correction_that_is_killed_is_brought_to_its_end(quiet: Pipeline, outside: Outside) -> None:
    user = unique("u")
    push_and_wait(outside, "user", user, {"state": "Goa"})
    mids, batch_id = send_events(outside, user)
    push(outside, "user", user, {"state": "Kerala"})
    watch = Watch(
        quiet,
        "SELECT count(), uniqExact(mid), uniqExact(user, location, flags), any(JSONExtractString(user, 'state')), "
        "any(JSONExtractString(location, 'state')) FROM events WHERE batch_id = {id:String}",
        id=batch_id,
    )
    with watch.looking():
        job_id = begin_sync(outside, "user", user)
        kill_when(outside, "the correction is shown", lambda now: now[0] == "user")
        end_leases(outside)
        job = done(outside, job_id)
    assert "error" not in job
    wait_until("nothing is shown, of repairs of other objects neither", lambda: shown(outside) == ("", 0, 0), 30)
    # As one change of all of them, at the moment that the correction was shown, and no step back.
    assert watch.seen == [(EVENTS, EVENTS, 1, state, state) for state in ("Goa", "Kerala")]
    assert watch.looks > 50
    stored = copies(outside, mids[0])
    assert stored["user"] == {"state": "Kerala"}
    sql = "SELECT uniqExact(user), any(user) FROM {} WHERE batch_id = {{id:String}}"
    for table in ("learning_events", "operational_events"):
        assert tuple(outside.row(sql.format(table), id=batch_id).values()) == (1, '{"state":"Kerala"}')


class Backup:
    """Rows of a user in tables of ClickHouse, as they were before the user was erased."""

    TABLES = ("learning_events", "operational_events", "dimension_rows")

    def __init__(self, outside: Outside, batch_id: str, user: str) -> None:
        self._outside = outside
        self._batch_id = batch_id
        self._of_user = f"type = 'user' AND id = '{user}'"
        self._rows = {
            table: outside.clickhouse.arrow(f"SELECT * FROM {table} WHERE {self._where(table)}")
            for table in self.TABLES
        }
        assert [table.num_rows for table in self._rows.values()] == [EVENTS // 2, EVENTS // 2, 1]

    def _where(self, table: str) -> str:
        return self._of_user if table == "dimension_rows" else f"batch_id = '{self._batch_id}'"

    def restore(self) -> None:
        """Put the rows back in the place of those that are there now."""
        clickhouse = self._outside.clickhouse
        for table, rows in self._rows.items():
            clickhouse.command(f"ALTER TABLE {table} DELETE WHERE {self._where(table)}", {"mutations_sync": 2})
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema) as writer:
                writer.write_table(rows)
            clickhouse.insert_stream(
                table, rows.schema.names, sink.getvalue().to_pybytes(), "", tries=1, before_try=lambda _: None
            )


class Person:
    """A user with events in both event tables, who is to be erased."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self.id = unique("person")
        push_and_wait(outside, "user", self.id, {"state": "Goa"})
        self.mids, self.batch_id = send_events(outside, self.id)
        self.backup = Backup(outside, self.batch_id, self.id)
        self.counted = outside.counted([self.batch_id])
        self.job_id = ""

    def begin_erasure(self) -> str:
        """Have the person erased, once; return the job's id."""
        self.job_id = self.job_id or begin_delete(self._outside, f"/v1/dimensions/user/{self.id}", erase=True)
        return self.job_id

    def actors(self) -> set[str]:
        """Return who has made the events."""
        return {row["actor_id"] for row in self._outside.events(self.mids).values()}


@pytest.fixture(scope="module")
def person(outside: Outside) -> Person:
    return Person(outside)


def test_an_erasure_that_is_killed_twice_is_brought_to_its_end(
    quiet: Pipeline, outside: Outside, person: Person
) -> None:
    """While the copies are written, and while the others are removed."""
    watch = Watch(
        quiet,
        "SELECT count(), uniqExact(mid), uniqExact(actor_id), any(actor_id) = {user:String}, any(user) != '' "
        "FROM events WHERE batch_id = {id:String}",
        id=person.batch_id,
        user=person.id,
    )
    with watch.looking():
        job_id = person.begin_erasure()
        kill_when(outside, "copies are held back", lambda now: now[1] > 0 and now[2] == 0)
        end_leases(outside)
        kill_when(outside, "copies are shown", lambda now: now[1] > 0 and now[2] == EVENTS)
        end_leases(outside)
        job = done(outside, job_id)
    wait_until("nothing is shown, of repairs of other objects neither", lambda: shown(outside) == ("", 0, 0), 30)
    assert watch.seen == [(EVENTS, EVENTS, 1, 1, 1), (EVENTS, EVENTS, 1, 0, 0)]
    assert watch.looks > 100
    assert outside.counted([person.batch_id]) == person.counted
    assert tables_naming(outside, person.id) == {}
    assert person.actors() == {job["report"]["pseudonym"]}
    stored = sum(
        outside.value(f"SELECT count() FROM {table} WHERE batch_id = {{id:String}}", id=person.batch_id)
        for table in ("learning_events", "operational_events")
    )
    assert stored == EVENTS
    outside.wait_accounted()


def test_a_backup_that_brings_an_erased_user_back_is_erased_again(
    quiet: Pipeline, outside: Outside, person: Person
) -> None:
    """By the next start of `jobs`. What `store` was told of the user is lost with the restore too."""
    name = done(outside, person.begin_erasure())["report"]["pseudonym"]
    wait_until("all jobs have ended", lambda: not waiting(outside), 60, 0.2)
    digests = "type = 'erased' AND id = '{}'".format(name.removeprefix("erased-"))
    stop_process(quiet, "jobs")
    person.backup.restore()
    outside.clickhouse.command(f"ALTER TABLE dimension_rows DELETE WHERE {digests}", {"mutations_sync": 2})
    assert person.actors() == {person.id}
    assert tables_naming(outside, person.id).keys() >= {"learning_events", "operational_events", "dimension_rows"}
    start_process(quiet, "jobs")
    wait_until("nothing names the user any more", lambda: not tables_naming(outside, person.id), 60, 0.5)
    sql = f"SELECT count() FROM dimension_rows WHERE {digests}"
    wait_until("workers are told of the user again", lambda: outside.value(sql))
    wait_until("all jobs have ended", lambda: not waiting(outside), 60, 0.2)
    assert person.actors() == {name}
    assert outside.counted([person.batch_id]) == person.counted
    outside.wait_accounted()


def waiting(outside: Outside) -> list[Row]:
    """Return the jobs that are not over."""
    return [
        job
        for status in ("queued", "running")
        for job in outside.operate("GET", f"/v1/sync?status={status}").json()["jobs"]
    ]
