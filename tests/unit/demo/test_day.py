"""What the demo sends: deterministic, with every story in it, and an account of it that is right."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import Any

import pytest

from deploy.local.demo.broken import KINDS, choose_broken, spoil
from deploy.local.demo.clocks import AHEAD_MS, Clock, Fault
from deploy.local.demo.day import DAY_MS, Batch, Day, make_day, run_of
from deploy.local.demo.fleet import MIN_STUDENTS, make_fleet
from midstream.codes import Reason
from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.schemas import load_schemas
from midstream.settings import Settings

NOW_MS = 1_763_700_000_000
MIDNIGHT_MS = NOW_MS // DAY_MS * DAY_MS - DAY_MS


@pytest.fixture(scope="module")
def day() -> Day:
    return make_day(1, NOW_MS, 40)


def body_of(batch: Batch) -> bytes:
    return gzip.decompress(batch.body) if batch.body[:2] == b"\x1f\x8b" else batch.body


def good_events(day: Day, story: str) -> list[dict[str, Any]]:
    return [
        json.loads(event.text)
        for batch in day.batches
        if batch.device.story == story
        for event in batch.events
        if event.refusal is None
    ]


def test_same_seed_and_moment_make_the_same_day(day: Day) -> None:
    assert make_day(1, NOW_MS, 40) == day


def test_another_run_sends_other_mids_of_the_same_fleet(day: Day) -> None:
    later = make_day(1, NOW_MS + 1, 40)
    assert later.run != day.run
    assert later.good_mids.isdisjoint(day.good_mids)
    assert later.fleet == day.fleet
    assert [len(batch.events) for batch in later.batches] == [len(batch.events) for batch in day.batches]


def test_another_seed_is_another_fleet(day: Day) -> None:
    other = make_day(2, NOW_MS, 40)
    assert {person.id for person in other.fleet.people}.isdisjoint(person.id for person in day.fleet.people)
    assert other.good_mids.isdisjoint(day.good_mids)


def test_run_is_the_moment_in_base_36() -> None:
    assert int(run_of(NOW_MS), 36) == NOW_MS


def test_a_fleet_too_small_for_the_stories_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 12 students"):
        make_fleet(1, MIN_STUDENTS - 1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("students", [MIN_STUDENTS, 13, 40])
def test_every_story_is_told_in_a_fleet_of_any_size(students: int, seed: int) -> None:
    day = make_day(seed, NOW_MS, students)
    assert any(batch.lost_replies for batch in day.batches)
    assert {batch.device.story for batch in day.batches} == {"daily", "offline", "shared file", "wrong clock", "web"}
    assert sum(person.role == "student" for person in day.fleet.people) == students
    used = {person for device in day.fleet.devices for person in device.users}
    assert used == set(day.fleet.people)
    assert day.followed_mid in day.good_mids


def test_bodies_hold_the_events_of_the_account(day: Day) -> None:
    for batch in day.batches:
        body = body_of(batch)
        assert body.endswith(b'"events":[' + b",".join(event.text for event in batch.events) + b"]}")
        envelope = json.loads(body)  # Python reads the NaN too
        assert len(envelope["events"]) == len(batch.events)
        assert envelope["params"] == {"did": batch.device.id, "key": "", "msgid": batch.msgid, "requesterId": ""}
        assert batch.headers["X-Device-Id"] == batch.sender.id
        assert len(batch.body) < 1024 * 1024


def test_msgids_name_one_batch_each(day: Day) -> None:
    msgids = [batch.msgid for batch in day.batches]
    assert len(set(msgids)) == len(msgids)
    assert all(msgid.startswith(f"demo-{day.run}-") for msgid in msgids)


def test_batches_are_as_large_as_their_clients_make_them(day: Day) -> None:
    for batch in day.batches:
        assert 1 <= len(batch.events) <= (20 if batch.sender.kind == "web" else 200)


def test_gzip_is_announced_or_not_and_done_or_not(day: Day) -> None:
    habits = {(batch.headers.get("Content-Encoding"), batch.body[:2] == b"\x1f\x8b") for batch in day.batches}
    assert habits == {("gzip", True), (None, True), ("gzip", False), (None, False)}


def test_one_event_in_a_hundred_is_broken_in_each_known_way(day: Day) -> None:
    events = {event.text: event for batch in day.batches for event in batch.events}.values()
    broken = [event for event in events if event.refusal]
    assert 0.007 < len(broken) / len(events) < 0.013
    assert {event.refusal for event in broken} == {kind.code for kind in KINDS}
    assert [event.mid for event in broken if not event.mid] != []
    assert all(event.refusal is Reason.MISSING_MID for event in broken if not event.mid)


def test_each_kind_spoils_what_its_name_says(day: Day) -> None:
    events = good_events(day, "daily") + good_events(day, "web")
    for kind in KINDS:
        event = next(event for event in events if not kind.eids or event["eid"] in kind.eids)
        before = json.dumps(event)
        broken = spoil(kind, event)
        assert json.dumps(event) == before
        assert broken.refusal is kind.code
        assert broken.text != json.dumps(event, separators=(",", ":")).encode(), kind.name
        assert (b"NaN" in broken.text) == (kind.code is Reason.INVALID_JSON)


def test_no_more_events_are_broken_than_there_are() -> None:
    from random import Random

    assert choose_broken(Random(1), [], 5) == {}
    one = {"mid": "m", "eid": "LOG"}
    assert set(choose_broken(Random(1), [one], 5)) == {"m"}
    assert choose_broken(Random(1), [one], 0) == {}


def test_the_shared_file_comes_first_from_the_administrator_then_from_the_phone(day: Day) -> None:
    first, second = day.rounds
    file = [batch for batch in first if batch.device.story == "shared file"]
    assert all(batch.sender == day.fleet.administrator for batch in file)
    phone = [batch for batch in second if batch.sender.story == "shared file"]
    shared = [event for batch in file for event in batch.events]
    synced = [event for batch in phone for event in batch.events]
    assert synced[: len(shared)] == shared  # the same bytes
    assert len(synced) > len(shared)  # and what came after
    assert day.followed_mid in {event.mid for event in shared}
    assert {json.loads(event.text)["context"]["did"] for event in shared} == {file[0].device.id}


def test_offline_phones_bring_events_of_past_days(day: Day) -> None:
    ages = {(MIDNIGHT_MS - event["ets"] + DAY_MS) // DAY_MS for event in good_events(day, "offline")}
    assert max(ages) == 9
    assert min(ages) == 0


def test_wrong_clocks_show_in_ets(day: Day) -> None:
    digits = Counter(len(str(event["ets"])) for event in good_events(day, "wrong clock"))
    assert set(digits) == {8, 10, 13, 16}
    sent = {json.loads(body_of(batch))["ets"] for batch in day.batches if batch.sender.clock.fault == "ahead"}
    assert sent == {NOW_MS + AHEAD_MS}


@pytest.mark.parametrize(
    ("fault", "ets"),
    [
        ("", NOW_MS),
        ("ahead", NOW_MS + 5 * 3_600_000),
        ("since 1970", NOW_MS - MIDNIGHT_MS),
        ("seconds", NOW_MS // 1000),
        ("microseconds", NOW_MS * 1000),
    ],
)
def test_clocks(fault: Fault, ets: int) -> None:
    assert Clock(fault).ets(NOW_MS, MIDNIGHT_MS) == ets


def test_some_replies_get_lost_and_one_batch_comes_again_with_another_syncts(day: Day) -> None:
    assert sum(batch.lost_replies for batch in day.batches) > 0
    restamped = day.rounds[1][-1]
    original = next(batch for batch in day.rounds[0] if batch.device == restamped.device)
    assert [event.mid for event in restamped.events] == [event.mid for event in original.events]
    for old, new in zip(original.events, restamped.events, strict=True):
        assert json.loads(new.text) == {**json.loads(old.text), "syncts": NOW_MS} or old.refusal is Reason.INVALID_JSON


def test_dimensions_describe_the_fleet_but_for_one_tablet_a_school_and_one_content(day: Day) -> None:
    rows = day.dimensions
    assert {row["id"] for row in rows["user"]} == {person.id for person in day.fleet.people}
    assert len(rows["content"]) == len(day.fleet.contents) - 1
    unknown = {device.id for device in day.fleet.devices} - {row["id"] for row in rows["device"]}
    assert unknown == {device.id for device in day.fleet.devices if not device.is_known}
    assert 1 <= len(unknown) <= 2


def test_the_account_of_broken_events_is_what_the_judge_says(day: Day) -> None:
    settings = Settings()
    judge = Judge(load_schemas(), settings.max_event_bytes, settings.max_event_depth)
    for event in {event.text: event for batch in day.batches for event in batch.events}.values():
        verdict = judge.judge(event.text)
        if event.refusal is None:
            assert isinstance(verdict, Accepted), (event, verdict)
        else:
            assert isinstance(verdict, Refused), event
            assert (verdict.reason, verdict.mid) == (event.refusal, event.mid)
