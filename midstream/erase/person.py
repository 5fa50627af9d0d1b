"""Erases a user wherever something of the user is stored: the steps, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import DimensionType
from midstream.erase.elsewhere import Elsewhere
from midstream.erase.events import EventEraser
from midstream.erase.naming import holds, is_long, quoted
from midstream.erase.report import Spooled, what_time_removes
from midstream.erase.rows import event_rewriter
from midstream.erased import pseudonym

_REASON = "what was stored of a person was erased"
_SPOOL_S = 30.0
_POLL_S = 1.0
_MAX_NUMBER = 2**63 - 1


class Rebuilds(Protocol):
    """Has days of datasets built anew."""

    def rebuild(self, first_day: date, last_day: date, reason: str) -> int:
        """Return how many days of datasets are built anew; raise RegistryUnavailable."""


class ForgetsLearner(Protocol):
    """The registry's side of a learner's records."""

    def erase(self, user_id: int) -> int:
        """Remove a learner, with tokens and rights; return how many rows. Raise RegistryUnavailable."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure did."""

    changed: Mapping[str, int]
    """Rows by table."""
    report: Mapping[str, Any]


class PersonEraser:
    """One at a time in a deployment: who has the lease of the jobs. Blocks."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        cluster: str,
        datasets: Rebuilds,
        learners: ForgetsLearner,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clickhouse = clickhouse
        self._events = EventEraser(clickhouse, cluster, sleep=sleep)
        self._elsewhere = Elsewhere(clickhouse, cluster)
        self._datasets = datasets
        self._learners = learners
        self._sleep = sleep
        self._clock = clock

    def recover(self) -> None:
        """Bring to its end what one who died has left. Raises ClickHouseError."""
        self._events.recover()

    def erase(
        self,
        type_: DimensionType,
        id_: str,
        digest: str,
        progress: Callable[[str, int, int], None],
        check: Callable[[], None],
    ) -> Erasure:
        """Replace a user's id by its pseudonym wherever it is stored, or remove what it stands in.

        The digest must be with every worker of ``store`` already, so that what arrives meanwhile is stored under the
        pseudonym. Begun again, it goes on.

        Args:
            type_: of the object: a user.
            id_: as it is called.
            digest: of it, see :mod:`midstream.erased`.
            progress: told a step's name, what is done of it, and of how much.
            check: called where it is safe to stop; raises to have it stop.

        Raises:
            ClickHouseError, RegistryUnavailable: it can be called again, and goes on.
            ValueError: the object is no user.
        """
        if type_ is not DimensionType.USER:
            raise ValueError(f"a {type_} cannot be erased: only users can")
        began = datetime.now(UTC)
        name = pseudonym(digest)
        changed: dict[str, int] = {}
        steps: dict[str, Callable[[], int]] = {
            "dimensions": lambda: self._elsewhere.dimensions(id_),
            "events": lambda: self._erase_events(id_, name, check),
            "rejects": lambda: self._elsewhere.rejects(id_, name),
            "batches": lambda: self._elsewhere.batches(id_, name),
            "device_history": lambda: self._elsewhere.devices(id_, name),
            "assignment_telemetry": lambda: self._erase_learner(id_),
        }
        for number, (step, do) in enumerate(steps.items()):
            check()
            progress(step, number, len(steps))
            changed[step] = do()
        # A duplicate's row holds nothing of a person but a device's id; it stays, as it is counted.
        changed["duplicates"] = 0
        progress("spool", len(steps), len(steps))
        spooled = self._wait_for_spools(began, check)
        report = {
            "pseudonym": name,
            "changed": changed,
            "still_naming": self._elsewhere.still_naming(id_),
            "left_to_time": what_time_removes(spooled, self._elsewhere.dimensions_naming(id_)),
        }
        return Erasure(changed, report)

    def _erase_events(self, id_: str, name: str, check: Callable[[], None]) -> int:
        rows = self._events.erase(_names(id_), event_rewriter(id_, name), check)
        # By what is stored, not by what was done now: an erasure that goes on after a crash finds these days too.
        for first, last in _runs(self._events.days(_names(name))):
            self._datasets.rebuild(first, last, _REASON)
        return rows

    def _erase_learner(self, id_: str) -> int:
        if not (id_.isascii() and id_.isdecimal() and int(id_) <= _MAX_NUMBER):
            return 0
        return self._elsewhere.assignments(int(id_)) + self._learners.erase(int(id_))

    def _wait_for_spools(self, began: datetime, check: Callable[[], None]) -> Spooled:
        """Wait until collectors have sent on what they held when this began; return what is left after some time."""
        deadline = self._clock() + _SPOOL_S
        while True:
            ((batches, size),) = self._clickhouse.rows(
                "SELECT sum(spooled_batches), sum(spooled_bytes) FROM collectors WHERE spooled_batches > 0 "  # noqa: S608
                f"AND oldest < fromUnixTimestamp64Milli({int(began.timestamp() * 1000)}, 'UTC')"
            )
            if not batches or self._clock() >= deadline:
                return Spooled(int(batches), int(size))
            check()
            self._sleep(_POLL_S)


def _names(id_: str) -> str:
    """Return SQL: an event may name the user."""
    named = [f"actor_id = {quoted(id_)}", f"(lower(object_type) = 'user' AND object_id = {quoted(id_)})"]
    named += [holds(column, id_) for column in (("raw", "user") if is_long(id_) else ("cdata",))]
    return " OR ".join(named)


def _runs(days: Sequence[date]) -> list[tuple[date, date]]:
    """Return the first and last of each run of days, which are in order, that follow one another."""
    runs: list[tuple[date, date]] = []
    for day in days:
        if runs and day - runs[-1][1] == timedelta(days=1):
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs
