"""One event as an app writes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from deploy.local.demo.fleet import Content, Device, Person
from midstream.codes import Reason


@dataclass(frozen=True, slots=True)
class Event:
    """An event on a device, ready to be sent.

    ``text`` is its JSON, the same bytes whenever it is sent; ``refusal`` is the reason code it will be refused
    with, None for a good one. ``mid`` is "" where the event has none.
    """

    mid: str
    eid: str
    text: bytes
    refusal: Reason | None = None


class Recorder:
    """Writes down the events of one device, in the order in which they happen."""

    def __init__(self, device: Device, run: str, midnight_ms: int) -> None:
        self._device = device
        self._run = run
        self._midnight_ms = midnight_ms
        self._moments: list[int] = []
        self._sessions = 0
        self.events: list[dict[str, Any]] = []

    def record(
        self,
        moment_ms: int,
        person: Person,
        session: str,
        eid: str,
        edata: dict[str, Any],
        content: Content | None = None,
        env: str = "home",
    ) -> None:
        """Add an event of ``person`` at a moment (true time, epoch milliseconds)."""
        device = self._device
        web = device.kind == "web"
        digest = self._digest("event", len(self.events))
        event: dict[str, Any] = {
            "eid": eid,
            "ets": device.clock.ets(moment_ms, self._midnight_ms),
            "ver": "3.0",
            "mid": f"{eid}:{digest}",
            "actor": {"id": person.id, "type": "User"},
            "context": {
                "channel": person.school.channel,
                "env": env,
                "pdata": {
                    "id": "demo.learning.portal" if web else "demo.learning.app",
                    "pid": "learning-portal" if web else "learning-app",
                    "ver": device.app_version,
                },
                "sid": session,
                "did": device.id,
                "cdata": [{"type": "Class", "id": person.grade}] if person.role == "student" else [],
            },
            "edata": edata,
            "tags": [f"demo-{self._run}", person.school.channel],
        }
        if content is not None:
            event["object"] = {
                "id": content.id,
                "type": "Content",
                "ver": content.version,
                "rollup": {"l1": content.book},
            }
        self._moments.append(moment_ms)
        self.events.append(event)

    def new_session(self) -> str:
        """Return an id for a session."""
        self._sessions += 1
        return self._digest("session", self._sessions)

    def _digest(self, what: str, number: int) -> str:
        text = f"{self._run}/{self._device.id}/{what}/{number}"
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def by_day(self, day_ms: int) -> list[list[dict[str, Any]]]:
        """Return the events day by day."""
        days: dict[int, list[dict[str, Any]]] = {}
        for moment_ms, event in zip(self._moments, self.events, strict=True):
            days.setdefault(moment_ms // day_ms, []).append(event)
        return [days[day] for day in sorted(days)]


def finish(event: dict[str, Any]) -> Event:
    """Return a good event, as JSON."""
    return Event(event["mid"], event["eid"], orjson.dumps(event))
