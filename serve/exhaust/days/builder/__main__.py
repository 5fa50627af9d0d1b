"""``python -m serve.exhaust.days.builder``: build the days that standard input tells of, a line of JSON each.

What came of each is a line of standard output: one of :mod:`serve.exhaust.days.builder.exits`. It ends with its input.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from midstream.clickhouse.client import ClickHouse, ClickHouseError, open_client
from midstream.exhaust.queries import SETTINGS
from midstream.logs import configure_logs, get_logger
from midstream.settings import Settings, get_settings
from serve.exhaust.days.builder import exits
from serve.exhaust.days.builder.day import build_day
from serve.exhaust.days.builder.errors import BuildError
from serve.exhaust.days.builder.job import Job, read_job
from serve.exhaust.days.shelf import Place, slot

_NICE = 15
# Errors of ClickHouse that pass. Names: its src/Common/ErrorCodes.cpp.
_PASSING = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        236,  # ABORTED
        241,  # MEMORY_LIMIT_EXCEEDED
        394,  # QUERY_WAS_CANCELLED
    }
)
_LOOK_S = 0.5
_SLOT_LOOK_S = 0.1

_log = get_logger("serve.exhaust.days.builder")


class _Events:
    """What is stored, as :func:`build_day` reads it."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    def rows(self, sql: str, parameters: dict[str, Any]) -> Iterable[tuple[Any, ...]]:
        return self._clickhouse.rows(sql, parameters)

    def stream(self, sql: str, parameters: dict[str, Any], form: str) -> Iterator[bytes]:
        return self._clickhouse.stream(sql, parameters, form, SETTINGS)


def main() -> None:
    """Build until the input ends."""
    settings = get_settings()
    configure_logs(settings, "exhaust")
    os.nice(_NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever waits says when it is over
    signal.signal(signal.SIGTERM, _end)
    for line in sys.stdin.buffer:
        print(_build_for(settings, read_job(line)), flush=True)


def _end(*_: object) -> None:
    """End as after an error: what is unfinished is removed."""
    sys.exit(exits.ABANDONED)


def _build_for(settings: Settings, job: Job) -> int:
    """Build a day as long as somebody waits for it."""
    place = Place(settings.exhaust_folder, job.key)
    with place.build() as ours:
        if not ours:
            return exits.ANOTHERS
        if place.built() is not None:
            return exits.BUILT
        done = threading.Event()
        threading.Thread(target=_give_up_alone, args=(place, done), name="waiters", daemon=True).start()
        try:
            return _build(settings, job, place)
        finally:
            done.set()


def _build(settings: Settings, job: Job, place: Place) -> int:
    while True:
        with slot(settings.exhaust_folder, settings.exhaust_builders) as ours:
            if ours:
                return _build_now(settings, job, place)
        time.sleep(_SLOT_LOOK_S)


def _build_now(settings: Settings, job: Job, place: Place) -> int:
    day = {"dataset": job.dataset.name, "day": str(job.day), "revision": job.revision}
    began = time.monotonic()
    try:
        with closing(open_client(settings, max_threads=1)) as clickhouse, place.new_part() as file:
            facts = build_day(job, _Events(clickhouse), file, place.folder, place.note_progress)
            if place.sha256_before() not in (None, facts.sha256):
                _log.error("exhaust.changed", **day, sha256=facts.sha256, before=place.sha256_before())
                return exits.CHANGED
            place.keep(facts)
    except ClickHouseError as error:
        _log.warning("exhaust.clickhouse_failed", **day, error=str(error)[:300])
        return exits.CLICKHOUSE if error.code is None or error.code in _PASSING else exits.FAILED
    except (BuildError, OSError) as error:
        _log.error("exhaust.not_built", **day, error=f"{type(error).__name__}: {error}")
        return exits.FAILED
    _log.info(
        "exhaust.built", **day, events=facts.events, bytes=facts.bytes, seconds=round(time.monotonic() - began, 1)
    )
    return exits.BUILT


def _give_up_alone(place: Place, done: threading.Event) -> None:
    """End this process, and with it the query that it reads, when nobody waits for the day any more."""
    while not done.wait(_LOOK_S):
        if not place.is_wanted() and not done.is_set():
            place.clear()
            _log.info("exhaust.abandoned", dataset=place.key.dataset, day=str(place.key.day))
            os._exit(exits.ABANDONED)  # whatever it waits for


if __name__ == "__main__":
    main()
