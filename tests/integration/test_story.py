"""One event, many arrivals: a shared file that an administrator syncs before or after the phone itself; resends."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from midstream.receipt import Receipt, encode_receipt
from midstream.topics import RAW, RECEIPT_HEADER
from tests.integration.outside import (
    Event,
    Outside,
    Record,
    Row,
    accepted,
    changed,
    make_body,
    make_event,
    now_ms,
    produce,
    unique,
)

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class School:
    """A student's phone and the administrator who takes its shared file."""

    student: str
    phone: str
    administrator: str
    channel: str

    def queued(self) -> list[Event]:
        """Return what the phone queued over three weeks; every second event leaves its device to the batch."""
        return [
            make_event(
                eid,
                ets=now_ms() - weeks * 7 * DAY_MS,
                actor=self.student,
                channel=self.channel,
                did=self.phone if number % 2 else None,
            )
            for number, (eid, weeks) in enumerate(
                (eid, weeks) for weeks in (3, 2, 1, 0) for eid in ("START", "ASSESS", "LOG", "INTERACT", "END")
            )
        ]

    def sync_shared_file(self, outside: Outside, events: Sequence[Event]) -> str:
        """The administrator's device posts; the body says whose file it is."""
        return outside.send(
            events,
            params={"did": self.phone, "msgid": unique("file")},
            x_device_id=self.administrator,
            x_channel_id="administration",
        )

    def sync_phone(self, outside: Outside, events: Sequence[Event]) -> list[str]:
        """The phone posts, in batches of its own size."""
        return [
            outside.send(
                events[start : start + 7],
                params={"did": self.phone},
                x_device_id=self.phone,
                x_channel_id=self.channel,
            )
            for start in range(0, len(events), 7)
        ]


@pytest.fixture
def school() -> School:
    return School(unique("student"), unique("phone"), unique("administrator"), unique("school"))


def batch(outside: Outside, batch_id: str) -> Row:
    return outside.row("SELECT * FROM batches WHERE batch_id = {id:String}", id=batch_id)


def check_story(outside: Outside, school: School, events: list[Event], first: list[str], later: list[str]) -> None:
    """Every event counted once, by its first arrival, under the student's device; the others say which that was."""
    mids = [event["mid"] for event in events]
    found = outside.settle([*first, *later])
    assert (found.stored, found.duplicate, found.rejected) == (len(events), len(events), 0)
    stored = outside.events(mids)
    assert set(stored) == set(mids)
    by_phone = outside.row(
        "SELECT count() AS events, uniqExact(mid) AS mids FROM events WHERE did = {did:String}", did=school.phone
    )
    assert by_phone == {"events": len(events), "mids": len(events)}
    assert outside.value("SELECT count() FROM events WHERE did = {did:String}", did=school.administrator) == 0

    received = {batch_id: batch(outside, batch_id)["received_at"] for batch_id in [*first, *later]}
    for event in events:
        row = stored[event["mid"]]
        assert row["batch_id"] in first
        assert row["received_at"] == received[row["batch_id"]]
        assert (row["did"], row["actor_id"], row["channel"]) == (school.phone, school.student, school.channel)
        assert row["ets"].timestamp() * 1000 == pytest.approx(event["ets"], abs=0.5)
    duplicates = {row["mid"]: row for row in outside.duplicates(later)}
    assert set(duplicates) == set(mids)
    assert outside.duplicates(first) == []
    for mid, row in duplicates.items():
        assert row["batch_id"] in later
        assert row["received_at"] == received[row["batch_id"]]
        assert row["first_batch_id"] == stored[mid]["batch_id"]
        assert row["first_received_at"] == stored[mid]["received_at"]
        assert row["did"] == school.phone
        assert row["channel"] == school.channel
        assert row["differs"] is False


def test_the_administrator_syncs_before_the_phone(outside: Outside, school: School) -> None:
    events = school.queued()
    first = [school.sync_shared_file(outside, events)]
    outside.settle(first)
    later = school.sync_phone(outside, events)
    check_story(outside, school, events, first, later)
    said = batch(outside, first[0])
    assert (said["did"], said["channel"], said["events"]) == (school.phone, "administration", len(events))


def test_the_phone_syncs_before_the_administrator(outside: Outside, school: School) -> None:
    events = school.queued()
    first = school.sync_phone(outside, events)
    outside.settle(first)
    later = [school.sync_shared_file(outside, events)]
    check_story(outside, school, events, first, later)


def test_half_by_the_one_and_half_by_the_other(outside: Outside, school: School) -> None:
    """The file was shared while the phone was in the middle of it: the two overlap."""
    events = school.queued()
    shared, own = events[:12], events[8:]
    file = school.sync_shared_file(outside, shared)
    outside.settle([file])
    phone = school.sync_phone(outside, own)
    found = outside.settle([file, *phone])
    assert (found.stored, found.duplicate) == (len(events), 4)
    assert {row["mid"] for row in outside.duplicates(phone)} == {event["mid"] for event in events[8:12]}


def test_a_file_that_was_synced_three_weeks_ago(outside: Outside, school: School) -> None:
    """Received in another month, another partition of the table; found all the same."""
    events = school.queued()[:5]
    receipt = Receipt(
        batch_id=unique("three-weeks-ago"),
        received_at_ms=now_ms() - 40 * DAY_MS,
        events=len(events),
        sequence=0,
        collector=unique("old-collector"),
        bytes=1,
        did=school.phone,
    )
    produce(
        outside.pipeline, RAW.name, [Record(make_body(events), headers=[(RECEIPT_HEADER, encode_receipt(receipt))])]
    )
    outside.settle([receipt.batch_id])
    later = school.sync_phone(outside, events)
    check_story(outside, school, events, [receipt.batch_id], later)
    assert all((row["received_at"] - row["first_received_at"]).days in (39, 40) for row in outside.duplicates(later))


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("other contents", True),
        ("one more key", True),
        ("a string for a number", True),
        ("other white space", False),
        ("other order of keys", False),
        ("other escapes", False),
        ("the same bytes", False),
    ],
)
def test_a_resend_says_whether_it_differs(outside: Outside, name: str, differs: bool) -> None:
    event = make_event(object={"id": "do_1", "type": "Übung"}, did=unique("d"))
    resent: dict[str, Event | bytes] = {
        "other contents": changed(event, "edata", "id", value="another button"),
        "one more key": changed(event, "context", "more", value=1),
        "a string for a number": changed(event, "edata", "extra", value={"free": {"form": ["1", None, "x"]}}),
        "other white space": json.dumps(event, indent=3, separators=(" , ", " : ")).encode(),
        "other order of keys": json.dumps(event, sort_keys=True).encode(),
        "other escapes": json.dumps(event, ensure_ascii=False).replace("/", "\\/").encode(),
        "the same bytes": event,
    }
    first = outside.send([event])
    outside.settle([first])
    second = outside.send([make_event(), resent[name], make_event()])
    found = outside.settle([second])
    assert (found.stored, found.duplicate) == (2, 1)
    [row] = outside.duplicates([second])
    assert (row["mid"], row["eid"], row["event_index"]) == (event["mid"], "INTERACT", 1)
    assert (row["first_batch_id"], row["did"]) == (first, event["context"]["did"])
    assert row["differs"] is differs
    stored = outside.events([event["mid"]])[event["mid"]]
    assert json.loads(stored["raw"]) == event  # the first stays
    assert stored["batch_id"] == first


def test_the_same_mid_twice_in_one_batch(outside: Outside) -> None:
    event = make_event()
    other = changed(event, "edata", "id", value="other")
    batch_id = outside.send([make_event(), event, make_event(), event, other])
    found = outside.settle([batch_id])
    assert (found.received, found.stored, found.duplicate) == (5, 3, 2)
    stored = outside.events([event["mid"]])[event["mid"]]
    assert (stored["event_index"], json.loads(stored["raw"])) == (1, event)
    duplicates = outside.duplicates([batch_id])
    assert [(row["event_index"], row["differs"]) for row in duplicates] == [(3, False), (4, True)]
    assert {row["first_batch_id"] for row in duplicates} == {batch_id}
    assert {row["first_received_at"] for row in duplicates} == {stored["received_at"]}


def test_a_mid_is_one_event_whatever_its_kind(outside: Outside) -> None:
    """Dedupe is by mid alone, over all tables: LOG is kept in another one than INTERACT."""
    interact = make_event("INTERACT")
    log = make_event("LOG", mid=interact["mid"])
    first = outside.send([interact])
    outside.settle([first])
    second = outside.send([log])
    found = outside.settle([second])
    assert (found.stored, found.duplicate) == (0, 1)
    assert outside.events([interact["mid"]])[interact["mid"]]["eid"] == "INTERACT"
    [row] = outside.duplicates([second])
    assert (row["eid"], row["differs"]) == ("LOG", True)


def test_the_same_bytes_many_times_through_all_web_workers(outside: Outside) -> None:
    """A phone whose replies get lost: gzipped once, sent over and over, at the same time too."""
    events = [make_event(eid) for eid in ("START", "INTERACT", "LOG", "ASSESS", "END")]
    body = gzip.compress(make_body(events, msgid=unique("m")))
    headers = {"authorization": f"Bearer {outside.token}", "content-encoding": "gzip"}

    def post(_: int) -> str:
        # A connection of its own: whichever process accepts it serves it.
        url = f"{outside.pipeline.base_url}/api/data/v1/telemetry"
        return accepted(httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False))

    batch_ids: list[str] = []
    lives: set[str] = set()
    with ThreadPoolExecutor(8) as threads:
        while len(lives) < 2 and len(batch_ids) < 500:
            batch_ids += threads.map(post, range(30))
            found = outside.settle(batch_ids)
            sql = "SELECT DISTINCT collector FROM batches WHERE batch_id IN {ids:Array(String)}"
            lives = {row["collector"].rpartition("/")[0] for row in outside.rows(sql, ids=batch_ids)}
    assert len(lives) == 2, "one web worker got all connections"
    assert len(set(batch_ids)) == len(batch_ids)
    assert (found.stored, found.duplicate) == (len(events), len(events) * (len(batch_ids) - 1))
    stored = outside.events([event["mid"] for event in events])
    assert len(stored) == len(events)
    [first] = {row["batch_id"] for row in stored.values()}
    for row in outside.duplicates(batch_ids):
        assert (row["first_batch_id"], row["differs"]) == (first, False)
        assert row["batch_id"] != first


def test_the_device_of_an_event_is_its_own_then_the_bodys_then_the_headers(outside: Outside) -> None:
    own, nothing = make_event(did="own"), make_event(did=None)
    empty = make_event(did="")
    both = outside.send([own, nothing, empty], params={"did": "of the body"}, x_device_id="of the header")
    alone = outside.send([other := make_event(did=None)], x_device_id="of the header")
    outside.settle([both, alone])
    found = outside.events([event["mid"] for event in (own, nothing, empty, other)])
    assert [found[event["mid"]]["did"] for event in (own, nothing, empty, other)] == [
        "own",
        "of the body",
        "of the body",
        "of the header",
    ]
    assert batch(outside, both)["did"] == "of the body"
    assert batch(outside, alone)["did"] == "of the header"
