"""A day of the fleet: the batches that go out, and the client's own account of what must become of them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import orjson

from deploy.local.demo.broken import choose_broken, spoil
from deploy.local.demo.events import Event, Recorder, finish
from deploy.local.demo.fleet import Device, Fleet, Story, dimension_rows, make_fleet
from deploy.local.demo.lessons import Session

DAY_MS = 24 * 3600 * 1000
BROKEN_SHARE = 0.01
LOST_REPLY_SHARE = 0.05

_SCHOOL_HOURS = (3.0, 10.5)  # 08:30 to 16:00 in India, as UTC hours of the day
_HOMEWORK_HOURS = (12.5, 15.5)
_HOURS = {"phone": (_SCHOOL_HOURS, _HOMEWORK_HOURS), "tablet": (_SCHOOL_HOURS,), "web": (_SCHOOL_HOURS,)}
_WEB_BATCH = 20
_PHONE_BATCH = (60, 200)
_SHARED_FILE_BATCH = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """One request. It is repeated, byte for byte, until a reply arrives."""

    msgid: str
    device: Device
    """Whose events these are: ``params.did``."""
    sender: Device
    """Who posts them: ``X-Device-Id``."""
    events: tuple[Event, ...]
    body: bytes
    headers: dict[str, str]
    lost_replies: int = 0
    """How many replies get lost on the way back to the client, which then sends it again."""


@dataclass(frozen=True, slots=True)
class Day:
    """What the fleet sends in one run."""

    seed: int
    run: str
    date: str
    """The day of most events (UTC), the one before the run."""
    fleet: Fleet
    dimensions: dict[str, list[dict[str, Any]]]
    rounds: tuple[tuple[Batch, ...], ...]
    """One after the other; within a round each sender keeps its order, and senders do not wait for each other."""
    followed_mid: str
    """An event of the shared file: the administrator sends it first, the student's phone later."""

    @property
    def batches(self) -> Iterator[Batch]:
        """All batches in order."""
        for round_ in self.rounds:
            yield from round_

    @property
    def good_mids(self) -> set[str]:
        """Mids of which each must be stored once."""
        return {event.mid for batch in self.batches for event in batch.events if event.refusal is None}


def run_of(now_ms: int) -> str:
    """Return the name of the run that begins now: epoch milliseconds in base 36."""
    digits = ""
    while now_ms:
        now_ms, rest = divmod(now_ms, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
    return digits


def make_day(seed: int, now_ms: int, students: int) -> Day:
    """Return the day before ``now_ms`` (epoch milliseconds) of the fleet of a seed."""
    random = Random(f"day {seed}")  # noqa: S311 - a play, no secret
    fleet = make_fleet(seed, students)
    run = run_of(now_ms)
    midnight_ms = now_ms // DAY_MS * DAY_MS - DAY_MS
    recorders = {device.id: _live(random, fleet, device, run, midnight_ms) for device in fleet.devices}
    events = [event for recorder in recorders.values() for event in recorder.events]
    broken = choose_broken(random, events, round(len(events) * BROKEN_SHARE))
    done = {e["mid"]: spoil(broken[e["mid"]], e) if e["mid"] in broken else finish(e) for e in events}

    post = _PostRoom(random, run, now_ms, midnight_ms)
    first: list[Batch] = []
    second: list[Batch] = []
    followed = ""
    for device in fleet.devices:
        days = recorders[device.id].by_day(DAY_MS) if not device.clock.fault else [recorders[device.id].events]
        mine = [[done[event["mid"]] for event in day] for day in days]
        if device.story == "shared file":
            shared = [event for day in mine[:-1] for event in day]
            first += post.pack(shared, device, fleet.administrator, _SHARED_FILE_BATCH)
            second += post.pack([event for day in mine for event in day], device, device)
            good = [event for event in shared if event.refusal is None]
            followed = max(good, key=lambda event: event.eid == "ASSESS").mid
        else:
            first += post.pack([event for day in mine for event in day], device, device)
    if not any(batch.lost_replies for batch in first):
        first[0] = replace(first[0], lost_replies=1)
    second.append(post.restamp(next(batch for batch in first if batch.device.story == "daily")))
    date = datetime.fromtimestamp(midnight_ms / 1000, UTC).date().isoformat()
    return Day(seed, run, date, fleet, dimension_rows(fleet), (tuple(first), tuple(second)), followed)


def _live(random: Random, fleet: Fleet, device: Device, run: str, midnight_ms: int) -> Recorder:
    """Return what the users of a device did: on the day that began at midnight, and on those it was offline before."""
    recorder = Recorder(device, run, midnight_ms)
    for days_ago in range(device.days_offline, -1, -1):
        for person in device.users:
            for hours in _HOURS[device.kind]:
                for _ in range(random.randint(1, 3)):
                    moment_ms = midnight_ms - days_ago * DAY_MS + int(random.uniform(*hours) * 3600 * 1000)
                    session = Session(random, recorder, person, moment_ms)
                    contents = random.sample(fleet.contents, random.randint(1, 2))
                    if person.role == "teacher":
                        session.teach(contents * 3)
                    else:
                        session.learn(contents, device.spec)
    return recorder


class _PostRoom:
    """Packs events into batches as the device's client does."""

    def __init__(self, random: Random, run: str, now_ms: int, midnight_ms: int) -> None:
        self._random = random
        self._run = run
        self._now_ms = now_ms
        self._midnight_ms = midnight_ms
        self._number = 0

    def pack(self, events: Sequence[Event], device: Device, sender: Device, size: int | None = None) -> list[Batch]:
        """Return batches of ``size`` events, by default as many as this kind of client takes."""
        if size is None:
            size = _WEB_BATCH if sender.kind == "web" else self._random.randint(*_PHONE_BATCH)
        return [self._batch(tuple(events[at : at + size]), device, sender) for at in range(0, len(events), size)]

    def restamp(self, batch: Batch) -> Batch:
        """Return the batch as an app sends it again that writes the time of syncing into each event."""
        stamp = b',"syncts":%d}' % self._now_ms
        events = tuple(Event(e.mid, e.eid, e.text[:-1] + stamp, e.refusal) for e in batch.events)
        return self._batch(events, batch.device, batch.sender)

    def _batch(self, events: tuple[Event, ...], device: Device, sender: Device) -> Batch:
        self._number += 1
        msgid = f"demo-{self._run}-{self._number:04d}"
        head = {
            "id": "api.sunbird.telemetry",
            "ver": "3.0",
            "ets": sender.clock.ets(self._now_ms, self._midnight_ms),
            "params": {"did": device.id, "key": "", "msgid": msgid, "requesterId": ""},
        }
        body = orjson.dumps(head)[:-1] + b',"events":[' + b",".join(event.text for event in events) + b"]}"
        headers = {
            "Content-Type": "application/json",
            "X-Device-Id": sender.id,
            "X-Channel-Id": sender.users[0].school.channel,
            "X-App-Id": "demo.learning.portal" if sender.kind == "web" else "demo.learning.app",
        }
        if sender.kind != "web":
            body = self._compress(body, headers)
        lost = 1 if self._random.random() < LOST_REPLY_SHARE else 0
        return Batch(msgid, device, sender, events, body, headers, lost)

    def _compress(self, body: bytes, headers: dict[str, str]) -> bytes:
        """Most phones gzip and say so; some gzip without saying so, and some say so without doing it."""
        habit = self._random.random()
        if habit < 0.9:
            headers["Content-Encoding"] = "gzip"
        return body if 0.8 < habit < 0.9 else gzip.compress(body, 6, mtime=0)


STORIES: dict[Story, str] = {
    "daily": "online: synced on the day",
    "offline": "offline for days, then synced",
    "shared file": "offline: an administrator synced the shared file, later the phone",
    "wrong clock": "clock 5 hours ahead; in 1970; ets in seconds; ets in microseconds",
    "web": "the teachers' portal: as it happens",
}
