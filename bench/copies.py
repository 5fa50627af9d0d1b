"""Looks all the time whether an object's stored events agree on the copy that they show, while it is corrected."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from bench.users import NEW, OLD
from midstream.clickhouse.client import ClickHouseError, open_client
from midstream.settings import Settings

_EVERY_S = 0.1
_TIMEOUT_MS = 60_000

_LOOK = f"""
SELECT actor_id, count(), countIf(position(user, '"{OLD} ') > 0), countIf(position(user, '"{NEW} ') > 0),
    countIf((position(user, '"{NEW} ') > 0) != (position(location, '"{NEW} ') > 0))
FROM events WHERE actor_type = 'User' AND actor_id IN {{ids:Array(String)}} GROUP BY actor_id
"""  # noqa: S608  constants


class Seen(NamedTuple):
    """An object's events in one look.

    Attributes:
        events: all of them.
        old: that show the old copy.
        new: that show the new copy.
        torn: whose copy and location are not of the same attributes.
    """

    events: int
    old: int
    new: int
    torn: int = 0


@dataclass(slots=True)
class Judge:
    """Told of look after look, says what was wrong.

    What must hold of an object: before the correction shows, events stored with the old copy show it, beside others
    that came after the push and carry the new one. In one look none of them shows it any more, and never again.
    So the number of events with the old copy may grow or become 0, and nothing else.
    """

    looks: int = 0
    both_before: int = 0
    """Objects in looks that showed both copies before the correction: allowed."""
    corrected: set[str] = field(default_factory=set)
    """Objects whose old copies were there and have gone."""
    wrong: dict[str, int] = field(default_factory=dict)
    """How many objects in looks were wrong, by what was."""
    _last: dict[str, Seen] = field(default_factory=dict)

    def look(self, found: Mapping[str, Seen]) -> None:
        """Take the objects' events as one query saw them, after all looks before."""
        self.looks += 1
        for id_, last in self._last.items():
            if id_ not in found:
                self._note("events that were gone", last.events > 0)
        for id_, seen in found.items():
            last = self._last.get(id_, Seen(0, 0, 0))
            self._note("fewer events than before", seen.events < last.events)
            self._note("a copy beside another's location", seen.torn > 0)
            if id_ in self.corrected:
                self._note("the old copy again", seen.old > 0)
            elif last.old and not seen.old:
                self.corrected.add(id_)
            else:
                self._note("half corrected", seen.old < last.old)
                self.both_before += seen.old > 0 and seen.new > 0
            self._last[id_] = seen

    def _note(self, what: str, is_so: bool) -> None:
        if is_so:
            self.wrong[what] = self.wrong.get(what, 0) + 1


class Watcher:
    """Looks at some objects' events ten times a second, or as often as it is answered, from entry to exit."""

    def __init__(self, settings: Settings, ids: Sequence[str]) -> None:
        self.judge = Judge()
        self.look_ms: list[float] = []
        self.looked_at: list[float] = []
        """When each look was answered, as ``time.monotonic`` tells it."""
        self.unanswered: list[str] = []
        self._settings = settings
        self._ids = list(ids)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="copies", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        clickhouse = open_client(self._settings, timeout_ms=_TIMEOUT_MS, max_threads=1)
        try:
            took_s = 0.0
            while not self._over.wait(max(0.0, _EVERY_S - took_s)):
                began = time.monotonic()
                try:
                    rows = clickhouse.rows(_LOOK, {"ids": self._ids})
                except ClickHouseError as error:
                    self.unanswered.append(str(error))
                else:
                    self.judge.look({id_: Seen(*counts) for id_, *counts in rows})
                took_s = time.monotonic() - began
                self.look_ms.append(took_s * 1000)
                self.looked_at.append(began + took_s)
        finally:
            clickhouse.close()

    def troubles(self) -> list[str]:
        """Return what was wrong."""
        troubles = [f"{what}: {times} times" for what, times in self.judge.wrong.items()]
        if self.unanswered:
            troubles.append(f"{len(self.unanswered)} looks were not answered: {self.unanswered[0]}")
        if missing := set(self._ids) - self.judge.corrected:
            troubles.append(f"{len(missing)} of the objects that were looked at were not seen before and after")
        return troubles
