"""A person is erased: nothing that is stored names them any more, and every count is what it was."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from urllib.parse import quote

import pytest

from midstream import topics
from midstream.devices.record import encode_report
from midstream.devices.report import read_report
from tests.integration.jobs import SYNC, all_copies, begin_delete, begin_sync, done, ended, tables_naming
from tests.integration.outside import Event, Outside, Record, Row, make_event, now_ms, produce, unique, without
from tests.support.waiting import wait_until


class Person:
    """A user of whom much is stored: ``key`` is the part of the id that nothing else has, however it is escaped."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.key = unique("k").removeprefix("k-")
        self.id = f'ann\'s "school"/ü {self.key}'
        self.path = f"/v1/dimensions/user/{quote(self.id, safe='')}"
        self.events = [
            make_event(actor=self.id, tags=[f"class of {self.id}"]),
            make_event("LOG", actor=self.id),
            make_event(actor=unique("u"), object={"id": self.id, "type": "User"}),
            self._in_cdata(),
            make_event(actor=self.id, did=f"phone of {self.id}"),
        ]
        self.other = make_event(actor=unique("u"))
        self.refused = without(make_event(actor=self.id), "edata", "id")
        self.mids = [event["mid"] for event in self.events]
        self.batch_ids: list[str] = []

    def _in_cdata(self) -> Event:
        event = make_event(actor=unique("u"))
        event["context"]["cdata"] = [{"type": "User", "id": self.id}, {"type": "Teacher", "id": self.id}]
        return event

    def store(self) -> None:
        """Have all of it stored, some of it twice."""
        outside = self.outside
        assert outside.operate("PUT", self.path, {"state": "Goa", "name": "Ann"}).status_code == 200
        enrolment = f"/v1/dimensions/user_course/{quote(f'{self.id}:course', safe='')}"
        assert outside.operate("PUT", enrolment, {"userId": self.id}).status_code == 200
        for path in (self.path, enrolment):
            wait_until("it is stored", lambda path=path: outside.operate("GET", path).status_code == 200)  # type: ignore[misc]
        self.batch_ids.append(outside.send([*self.events, self.other, self.refused]))
        outside.settle(self.batch_ids)
        self.batch_ids.append(outside.send([self.events[0], self.refused]))
        outside.settle(self.batch_ids)
        self._report()
        job_id = begin_sync(outside, "user", self.id)  # a job that names the person, and is over soon
        assert outside.operate("POST", f"/v1/sync/{job_id}/cancel").status_code == 202
        ended(outside, job_id)

    def _report(self) -> None:
        device = unique("d")
        report = {"status": "online", "telemetries": {"signed_in": self.id}, "message": f"{self.id} is here"}
        read = read_report(device, report, now_ms() * 1000, unique("receipt"))
        produce(self.outside.pipeline, topics.DEVICE.name, [Record(encode_report(read), device.encode())])
        sql = "SELECT count() FROM device_rows WHERE device_id = {device:String}"
        wait_until("the report is stored", lambda: self.outside.value(sql, device=device))

    def registry(self) -> str:
        """Return all that the registry holds, as SQL."""
        with sqlite3.connect(f"file:{self.outside.pipeline.home.root}/registry.db?mode=ro", uri=True) as registry:
            return "\n".join(registry.iterdump())

    def counts(self) -> dict[str, Row]:
        """Return what is counted of the batches, by batch and table."""
        found = {}
        for table in ("events", "duplicates", "rejects", "batches"):
            sql = (
                f"SELECT batch_id, count() AS n FROM {table} WHERE batch_id IN {{ids:Array(String)}} GROUP BY batch_id"
            )
            found[table] = {row["batch_id"]: row["n"] for row in self.outside.rows(sql, ids=self.batch_ids)}
        return found


@pytest.fixture(scope="module")
def person(outside: Outside) -> Person:
    found = Person(outside)
    found.store()
    return found


@pytest.fixture(scope="module")
def job(outside: Outside, person: Person) -> Row:
    """The job that has erased the person; what was stored before is all there."""
    before = person.counts()
    assert tables_naming(outside, person.key).keys() >= {
        "learning_events", "operational_events", "reject_rows", "dimension_rows", "device_rows", "device_latest_rows",
        "events", "rejects", "dimensions", "device_history",
    }  # fmt: skip
    assert person.key in person.registry()
    job = done(outside, begin_delete(outside, person.path, erase=True))
    assert person.counts() == before
    return job


def test_no_table_names_the_person(outside: Outside, person: Person, job: Row) -> None:
    assert tables_naming(outside, person.key) == {}
    assert person.key not in person.registry()
    assert outside.operate("GET", person.path).status_code == 404


def test_the_report_names_nobody_and_says_what_was_changed(person: Person, job: Row) -> None:
    assert person.key not in json.dumps(job)
    report = job["report"]
    assert report["pseudonym"].startswith("erased-")
    assert report["still_naming"] == {}
    assert report["changed"] == job["changed"]
    assert (job["changed"]["events"], job["changed"]["rejects"], job["changed"]["dimensions"]) == (5, 2, 2)
    assert job["changed"]["device_history"] == 2


def test_events_stand_under_the_pseudonym_with_all_that_is_not_the_persons(
    outside: Outside, person: Person, job: Row
) -> None:
    name = job["report"]["pseudonym"]
    rows = outside.events([*person.mids, person.other["mid"]])
    for event in (*person.events, person.other):
        # JSON in, JSON out: all else of the event is as it was sent.
        expected = json.loads(
            json.dumps(event, ensure_ascii=False).replace(json.dumps(person.id, ensure_ascii=False)[1:-1], name)
        )
        assert json.loads(rows[event["mid"]]["raw"]) == expected
        assert rows[event["mid"]]["actor_id"] == expected["actor"]["id"]
        assert rows[event["mid"]]["object_id"] == expected.get("object", {}).get("id", "")
        assert rows[event["mid"]]["did"] == expected["context"].get("did", "")
    of_actor = [person.mids[0], person.mids[1], person.mids[4]]
    for row in all_copies(outside, *of_actor).values():
        assert (row["user"], row["location"], row["flags"]["user"]) == ({}, {}, "missing")


def test_what_comes_later_is_stored_under_the_same_pseudonym(outside: Outside, person: Person, job: Row) -> None:
    later = [make_event(actor=person.id, tags=[person.id]), make_event("LOG", actor=person.id)]
    resent = outside.send([*person.events, person.refused])
    batch_id = outside.send(later)
    counted = outside.settle([resent, batch_id])
    assert (counted.stored, counted.duplicate, counted.rejected) == (2, 5, 1)
    actors = {row["actor_id"] for row in outside.events([event["mid"] for event in later]).values()}
    assert actors == {job["report"]["pseudonym"]}
    assert tables_naming(outside, person.key) == {}


def test_the_person_is_not_taken_again(outside: Outside, person: Person, job: Row) -> None:
    reply = outside.operate("PUT", person.path, {"state": "Goa"})
    assert (reply.status_code, reply.json()["code"]) == (409, "ERASED")
    assert person.key not in reply.text
    line = json.dumps({"id": person.id, "attributes": {"state": "Goa"}}).encode()
    reply = outside.operate("POST", "/v1/dimensions/user", line)
    assert (reply.json()["accepted"], reply.json()["errors"][0]["code"]) == (0, "ERASED")
    request = {"objectType": "user", "objectIds": [person.id], "operationType": "sync"}
    answered = outside.operate("POST", SYNC, {"request": request}).json()["result"]
    assert answered["esSyncResponse"] == {person.id: False}
    done(outside, answered["node_id"])
    assert tables_naming(outside, person.key) == {}


def test_the_audit_proves_the_persons_batches(outside: Outside, person: Person, job: Row) -> None:
    outside.wait_accounted()
    span = outside.row(
        "SELECT min(received_at) AS first, max(received_at) AS last FROM batches WHERE batch_id IN {ids:Array(String)}",
        ids=person.batch_ids,
    )
    is_over = "SELECT complete_until > {last:DateTime64(3, 'UTC')} FROM complete_until"
    wait_until("the batches are complete", lambda: outside.value(is_over, last=span["last"]), 40, 0.25)
    begin, end = (at.isoformat() for at in (span["first"], span["last"] + timedelta(milliseconds=1)))
    said = json.loads(outside.cli("audit", "--json", "--from", begin, "--to", end))
    assert said["proven"] is True
    ours = outside.counted(person.batch_ids)
    assert (said["stored"], said["duplicate"], said["rejected"]) == (
        ours.stored,
        ours.duplicate,
        ours.rejected,
    )
