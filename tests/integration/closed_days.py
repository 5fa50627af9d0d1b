"""Three days that are over, in the home of a pipeline that runs now: what apps sent in them, to the event.

The real processes received it under a clock that was set to each hour, were stopped, and started again now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from tests.integration.outside import Event, Outside, make_body, make_event, unique
from tests.support.faketime import Clock
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until

CHANNELS = ("north", "south")
CLOSE_S = 60.0
"""Longest that a start may take to close the days before it."""
MARKS_S = 20.0
"""How much later collectors' marks may be shown: they are written every ten seconds."""

_HOURS = (time(0, 0, 5), time(9, 30), time(10, 30), time(23, 58))
"""Moments of each day at which batches come: its first and last hour too."""
_EMPTY_OF_EAST = 1
"""The day in which nothing of the partner ``east`` comes."""


def resource_of(partner: str) -> str:
    """Return the resource of a partner's id: 40 hex digits in lower case."""
    return hashlib.sha1(partner.encode()).hexdigest()


EAST = resource_of("partner-east")
WEST = resource_of("partner-west")
NOBODY = resource_of("partner-nobody")
"""A partner of whom nothing was ever received."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that is stored: the first arrival of its mid."""

    mid: str
    channel: str
    eid: str
    tags: tuple[str, ...]
    text: str
    """As it was sent."""
    received_at: datetime
    batch_id: str
    event_index: int

    @property
    def day(self) -> date:
        return self.received_at.date()

    @property
    def hour(self) -> int:
        return self.received_at.hour

    def is_of(self, resource: str) -> bool:
        """Whether one of its tags names a resource (40 hex digits), in full or by its first 32, in any case."""
        return any(tag.lower() in (resource, resource[:32]) for tag in self.tags)


@dataclass(frozen=True)
class ClosedDays:
    """What was received, and the pipeline that has it."""

    outside: Outside
    days: tuple[date, date, date]
    """The three days before the one in which this was made, UTC."""
    sent: tuple[Sent, ...]
    """All that is stored, by receipt, batch and place in it: the order of a download."""
    duplicates: tuple[str, ...]
    """The mid of each arrival that was a duplicate: in the same batch, or on a later day."""
    rejected: int
    """Arrivals that were refused as invalid."""

    @property
    def pipeline(self) -> Pipeline:
        return self.outside.pipeline

    def of(self, resource: str, day: date | None = None, hour: int | None = None) -> list[Sent]:
        """Return what is stored of a resource (40 hex digits), of one day or one hour of it if given, in order."""
        return [
            one
            for one in self.sent
            if one.is_of(resource) and day in (None, one.day) and (hour is None or hour == one.hour)
        ]


@contextmanager
def run_closed_days(folder: Path) -> Iterator[ClosedDays]:
    """Make the days, and run the pipeline of now until the end of the context."""
    today = datetime.now(UTC).date()
    first, second, third = (today - timedelta(days=ago) for ago in (3, 2, 1))
    maker = _Maker(folder, (first, second, third))
    pipeline = maker.run()
    with pipeline:
        outside = Outside(pipeline)
        try:
            wait_closed(outside, third)
            yield maker.made(outside)
        finally:
            outside.close()


def complete_until(outside: Outside) -> datetime:
    """Return the moment before which everything that was received is through."""
    found: datetime = outside.value("SELECT complete_until FROM complete_until")
    return found


def midnight_after(day: date) -> datetime:
    """Return the end of a UTC day."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def wait_closed(outside: Outside, day: date) -> None:
    """Wait until a day is closed, as the api sees it: marks of collectors are shown some seconds later."""
    sql = "SELECT count() FROM collectors WHERE open AND low < {end:DateTime64(3)}"
    end = midnight_after(day)
    wait_until(
        f"{day} is closed",
        lambda: complete_until(outside) >= end and not outside.value(sql, end=end),
        CLOSE_S + MARKS_S,
        0.25,
    )


class _Maker:
    """Sends, and keeps what it has sent."""

    def __init__(self, folder: Path, days: tuple[date, date, date]) -> None:
        self._days = days
        self._clock = Clock(folder / "clock", datetime.combine(days[0], _HOURS[0], UTC))
        self._pipeline = Pipeline(folder / "home", clock=self._clock)
        self._arrived: dict[tuple[str, int], tuple[str, Event]] = {}
        self._duplicates: dict[tuple[str, int], str] = {}
        self._rejected = 0

    def run(self) -> Pipeline:
        """Run the pipeline through the days; return it, stopped, with the real clock."""
        with self._pipeline:
            outside = Outside(self._pipeline)
            try:
                for day in range(len(self._days)):
                    self._send_day(outside, day)
            finally:
                outside.close()
        self._pipeline.use_clock(None)
        return self._pipeline

    def _send_day(self, outside: Outside, day: int) -> None:
        earlier = list(self._arrived.values())
        ids: list[str] = []
        for number, at in enumerate(_HOURS):
            moment = datetime.combine(self._days[day], at, UTC)
            if moment > self._clock.now():  # the first begins with the clock where it is
                self._clock.set(moment)
            for channel in CHANNELS:
                again = earlier[number :: len(_HOURS)] if channel == CHANNELS[0] else []
                ids.append(self._send(outside, _events(channel, self._clock.now(), east=day != _EMPTY_OF_EAST), again))
        # Before the next day's: which arrival of a mid is the first is then what was sent first.
        found = outside.settle(ids, 60)
        assert found.received == sum(batch_id in ids for batch_id, _ in [*self._arrived, *self._duplicates]) + len(ids)

    def _send(self, outside: Outside, events: list[Event], again: list[tuple[str, Event]]) -> str:
        """Send events, the first of them twice, one that is invalid, and some that came on an earlier day."""
        # Some over several lines, and with characters as they are.
        texts = [
            json.dumps(event, indent=place % 3 or None, ensure_ascii=place % 2 == 1)
            for place, event in enumerate(events)
        ]
        first = len(texts)
        texts += [texts[0], '{"eid": "NOBODY"}', *(text for text, _ in again)]
        # Its reply tells the time by the clock that is set, so Outside.send() does not take it.
        response = outside.post(make_body([text.encode() for text in texts]))
        assert response.status_code == 200, response.text
        batch_id = response.headers["x-batch-id"]
        for place, (text, event) in enumerate(zip(texts, events, strict=False)):
            self._arrived[batch_id, place] = text, event
        self._duplicates[batch_id, first] = events[0]["mid"]
        self._duplicates |= {(batch_id, first + 2 + place): event["mid"] for place, (_, event) in enumerate(again)}
        self._rejected += 1
        return batch_id

    def made(self, outside: Outside) -> ClosedDays:
        """Return what was sent, with its receipt; check that it has become what is said of it."""
        ids = sorted({batch_id for batch_id, _ in self._arrived})
        rows = outside.rows("SELECT batch_id, received_at FROM batches WHERE batch_id IN {ids:Array(String)}", ids=ids)
        received_at = {row["batch_id"]: row["received_at"] for row in rows}
        sent = [
            Sent(
                mid=event["mid"],
                channel=event["context"]["channel"],
                eid=event["eid"],
                tags=tuple(event.get("tags", ())),
                text=text,
                received_at=received_at[batch_id],
                batch_id=batch_id,
                event_index=place,
            )
            for (batch_id, place), (text, event) in self._arrived.items()
        ]
        sent.sort(key=lambda one: (one.received_at, one.batch_id, one.event_index))
        stored = outside.rows("SELECT batch_id, event_index FROM events")
        assert {(row["batch_id"], row["event_index"]) for row in stored} == set(self._arrived)
        repeated = outside.duplicates(ids)
        assert {(row["batch_id"], row["event_index"]) for row in repeated} == set(self._duplicates)
        assert len(outside.rejects(ids)) == self._rejected
        assert {one.day for one in sent} == set(self._days)
        return ClosedDays(outside, self._days, tuple(sent), tuple(self._duplicates.values()), self._rejected)


def _events(channel: str, at: datetime, *, east: bool) -> list[Event]:
    """Return events of a batch: of both partners, of none, and some with tags that only look like a partner's."""
    tags: list[list[str] | None] = [
        [WEST],
        None,
        [WEST.upper(), "two\nlines, \u2028 too"],
        ["other", WEST[:32]],
        [],
        [WEST[:39]],
        [f"{WEST}0"],
        [f"x{WEST}"],
        ["partner-west"],
    ]
    if east:
        tags += [[EAST], [EAST.upper()], [EAST[:32]], [EAST[:32].upper()], [EAST, WEST], [EAST, EAST.upper()]]
    events = []
    for place, names in enumerate(tags):
        eid = ("INTERACT", "LOG", "START", "END")[place % 4]
        event = make_event(eid, mid=unique(eid), channel=channel, ets=int(at.timestamp() * 1000))
        event.pop("tags", None)
        events.append(event if names is None else event | {"tags": names})
    return events
